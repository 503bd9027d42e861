"""ShareGPT: conversations of people with ChatGPT that they shared; text alone, undivided.

`path` is one of the files that are passed on, each a list of {id, conversations: [{from: human | gpt, value}]}:

| file | messages |
| --- | --- |
| `ShareGPT_V3_unfiltered_cleaned_split.json`, `ShareGPT_V4.3_unfiltered_cleaned_split.json` | Markdown |
| `sg_90k_part1_html_cleaned.json`, `sharegpt_20230401_html_unsplit.json`, where FastChat starts | HTML: `html: true` |

With `clean` (the default), conversations are cleaned, and left out, by FastChat's rules (`equipoise.data.clean`). As
there, so is one whose id, or whose first question and answer, an earlier one had, and one that used plugins. What is
left out is no flaw: a line of the log counts it, by reason.

The reference is the last answer; a task of conversations has no metric in CoTBal.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from equipoise.data.clean import Invalid, html_to_markdown
from equipoise.data.clean import clean as cleaned
from equipoise.data.readers.files import json_items
from equipoise.data.readers.llava import messages_of, numbered, turns_of
from equipoise.data.readers.reader import Flaw, Reader, check_option, check_split, mapping, samples_of
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

logger = logging.getLogger(__name__)
SPLITS = ("train",)


def read(task: str, split: str, path: Path, clean: bool = True, html: bool = False) -> Iterator[Sample | Flaw]:
    """Read it all.

    Args:
        clean: apply FastChat's rules; otherwise a conversation that does not begin with a human and end with an answer
            is a flaw.
        html: messages are HTML, which becomes Markdown; needs the package markdownify.
    """
    check_split(task, "sharegpt", split, SPLITS)
    check_option(task, "sharegpt", "clean", clean, (False, True))
    check_option(task, "sharegpt", "html", html, (False, True))
    convert = html_to_markdown if html else str.strip
    seen: set[int] = set()  # hashes of ids and of first exchanges
    left_out: Counter[str] = Counter()
    read_so_far = 0

    def make(item: tuple[str, Any]) -> list[Sample]:
        nonlocal read_so_far
        id, row = item
        row = mapping(row)
        read_so_far += 1
        try:
            turns = _clean_turns(row, convert, seen) if clean else _turns(row, convert)
        except Invalid as reason:
            left_out[str(reason)] += 1
            return []
        except DataError as error:
            raise DataError(f"task {task}: {path}: {error}") from error
        return [Sample(id=id, task=task, turns=turns, references=(turns[-1].text,))]

    items = ((id, (id, row)) for id, row in numbered(json_items(task, path)))
    yield from samples_of(items, make, path)
    if left_out:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.most_common())
        logger.warning(
            "task %s: FastChat's rules leave out %d of %d conversations (%s)",
            task, left_out.total(), read_so_far, reasons,
        )  # fmt: skip


def _turns(row: dict[str, Any], convert: Callable[[str], str]) -> tuple[Turn, ...]:
    return turns_of([(speaker, convert(text)) for speaker, text in messages_of(row)])


def _clean_turns(row: dict[str, Any], convert: Callable[[str], str], seen: set[int]) -> tuple[Turn, ...]:
    """Clean a conversation that no earlier one equals, and remember it."""
    turns = cleaned(messages_of(row) if row["conversations"] != [] else [], convert)
    id, opening = hash(str(row["id"])), hash(turns[:2])
    if id in seen:
        raise Invalid("an id that came before")
    if row.get("plugins") is not None:
        raise Invalid("plugins")
    if opening in seen:
        raise Invalid("a beginning that came before")
    seen.update((id, opening))
    return turns


READER = Reader(read, splits=SPLITS)
