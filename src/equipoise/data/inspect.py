"""`equipoise data`: every task read as a run would read it, with what a person would want to know before one."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from rich.console import Console
from rich.table import Table

from equipoise.console import plain
from equipoise.data.collate import IGNORED, Collator
from equipoise.data.encoding import placeholder
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.data.store import Samples
from equipoise.data.tasks import PARTS, SHOWN, NothingReadable, Part, check_trains, is_unanswered, read_task, split_of
from equipoise.errors import DataError
from equipoise.recipe import Recipe, Task

MEASURED = 100  # samples a part whose tokens are counted
OPEN, CLOSE = "⟦", "⟧"  # around what is supervised


@dataclass(frozen=True)
class PartReport:
    """One part of a task.

    Attributes:
        samples: how many a run would use.
        flaws: the rows that cannot be read.
        tokens: [at most 100], the lengths of so many drawn samples, ascending; those of prompts where the answers are
            secret.
        too_long: how many of these `train.max_length` does not allow; none of a test part, to which it does not apply.
        mute: how many of these it leaves nothing of an answer when it cuts them.
        answers: [at most 100], the tokens of the last answer of each of these, without the one that ends it; none where
            they are secret.
    """

    samples: int
    flaws: Sequence[Flaw]
    tokens: Sequence[int]
    too_long: int
    mute: int
    answers: Sequence[int] = ()


@dataclass
class TaskReport:
    """One task.

    Attributes:
        parts: by part; one that the recipe leaves out, or that cannot be read at all, is missing.
        broken: why a part cannot be read at all, a line each, which `train` gives too.
        errors: what cannot be put before the model, a line each; of a split of which nothing can be, the first sample.
        shared: (one part, another): how many samples are word for word, image for image in both, and how many images
            or clips are.
        example: one sample as the model sees it.
    """

    name: str
    parts: dict[Part, PartReport] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    shared: dict[tuple[Part, Part], tuple[int, int]] = field(default_factory=dict)
    example: str = ""

    def stops(self, recipe: Recipe) -> bool:
        """Whether a run of the recipe would stop on this task's data."""
        parts = self.parts.values()
        flawed = recipe.data.on_error == "raise" and any(part.flaws for part in parts)
        too_long = any(part.mute or (recipe.train.too_long == "raise" and part.too_long) for part in parts)
        return bool(self.broken or self.errors) or flawed or too_long

    def unreadable(self) -> dict[Part, Sequence[Flaw]]:
        """The rows that cannot be read, once for each split: parts that are held out of one have the same."""
        found: dict[Part, Sequence[Flaw]] = {}
        for part, report in self.parts.items():
            if report.flaws and report.flaws not in found.values():
                found[part] = report.flaws
        return found


def inspect_data(
    recipe: Recipe, collator: Collator, advance: Callable[[str], None] = lambda _: None
) -> list[TaskReport]:
    """Read every part of every task, opening every image and clip.

    Args:
        collator: without a bound on the length, of the recipe's model.
        advance: told what is being read.

    Raises:
        DataError: no task has a training part.
    """
    check_trains(recipe)
    return [_inspect_task(task, recipe, collator, advance) for task in recipe.tasks]


def _inspect_task(task: Task, recipe: Recipe, collator: Collator, advance: Callable[[str], None]) -> TaskReport:
    report = TaskReport(task.name)
    contents: dict[Part, tuple[set[bytes], set[bytes]]] = {}
    looked: set[str | None] = set()
    for part in PARTS:
        advance(f"{task.name}, {part}")
        split = split_of(task, part)
        try:
            # An index remembers which images could be opened once; look again, once for all parts of a split.
            samples = read_task(task, part, recipe.train.seed, True, advance, fresh=split not in looked)
            looked.add(split)
            if samples is None:
                continue
            bound = recipe.train.max_length if part != "test" else None
            report.parts[part] = _measure(
                report, samples, collator, recipe.train.seed, bound, is_unanswered(task, part)
            )
            contents[part] = _contents(samples)
        except (DataError, OSError) as error:  # a file that has just gone is an OSError
            lines = report.errors if isinstance(error, NothingReadable) else report.broken
            lines += [str(error)] if str(error) not in lines else []  # parts of one split have the same
    for one, other in itertools.combinations(contents, 2):
        same = [len(a & b) for a, b in zip(contents[one], contents[other])]
        if any(same):
            report.shared[one, other] = same[0], same[1]
    return report


def _measure(
    report: TaskReport, samples: Samples, collator: Collator, seed: int, bound: int | None, prompt_only: bool
) -> PartReport:
    """Collate some of a part's samples; what cannot be collated goes to the report's errors."""
    lengths, starts, answers = [], [], []
    drawn = random.Random(f"{seed}/tokens").sample(range(len(samples)), min(MEASURED, len(samples)))
    for index in sorted(drawn):
        try:
            batch = collator.prompts([samples[index]]) if prompt_only else collator([samples[index]])
            if not report.example:
                report.example = rendered(samples[index], collator, prompt_only)
        except DataError as error:
            report.errors.append(str(error))
            continue
        lengths.append(int(batch["attention_mask"].sum()))
        if not prompt_only:
            starts.append(int((batch["labels"][0] != IGNORED).nonzero()[0]))
            answers.append(_answer_length(batch["labels"][0].tolist(), collator))
    most = math.inf if bound is None or prompt_only else bound
    too_long, mute = sum(length > most for length in lengths), sum(start >= most for start in starts)
    return PartReport(len(samples), samples.store.flaws, sorted(lengths), too_long, mute, answers)


def _answer_length(labels: list[int], collator: Collator) -> int:
    """The last answer's tokens, without what ends it."""
    answers = [list(run) for supervised, run in itertools.groupby(labels, key=IGNORED.__ne__) if supervised]
    special = set(collator.processor.tokenizer.all_special_ids)
    return sum(token not in special for token in answers[-1])


def rendered(sample: Sample, collator: Collator, prompt_only: bool = False) -> str:
    """The sample as the model sees it: the text of its tokens, runs of placeholders as `<image>*49`, what is supervised
    between ⟦ and ⟧."""
    if prompt_only:
        return _folded(_decoded(collator, collator.prompts([sample])["input_ids"][0].tolist()), collator)
    batch = collator([sample])
    pieces = []
    pairs = zip(batch["input_ids"][0].tolist(), batch["labels"][0].tolist())
    for supervised, run in itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        text = _decoded(collator, [token for token, _ in run])
        pieces.append(f"{OPEN}{text}{CLOSE}" if supervised else text)
    return _folded("".join(pieces), collator)


def _decoded(collator: Collator, tokens: list[int]) -> str:
    return collator.processor.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def _folded(text: str, collator: Collator) -> str:
    for token in filter(None, (placeholder(collator.processor, kind) for kind in ("image", "audio"))):
        text = re.sub(f"({re.escape(token)})\\1+", lambda run: f"{run[1]}*{len(run[0]) // len(run[1])}", text)
    return text


def _contents(samples: Sequence[Sample]) -> tuple[set[bytes], set[bytes]]:
    """Digests of the samples, and of their images and clips."""
    conversations, media = set(), set()
    for sample in samples:
        files = [_file_digest(path) for path in (*sample.images, *sample.audios)]
        media.update(files)
        text = "\0".join(part for turn in sample.turns for part in (turn.role, turn.text))
        conversations.add(_digest(text.encode(), *files))
    return conversations, media


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


@lru_cache(maxsize=4_096)  # questions about one image stand together
def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def print_data(reports: Sequence[TaskReport], recipe: Recipe, console: Console) -> None:
    """Print the tables, what is wrong, and a sample of each task."""
    table = Table("task", "part", "samples", "unreadable", "least", "mean", "most", "too long")
    table.caption, table.caption_justify = "least, mean and most: tokens of a sample", "left"
    for report in reports:
        unreadable = report.unreadable()
        for number, (part, found) in enumerate(report.parts.items()):
            lengths: Sequence[int | str] = ("-", "-", "-")
            if found.tokens:
                lengths = (found.tokens[0], round(sum(found.tokens) / len(found.tokens)), found.tokens[-1])
            flaws = len(found.flaws) if part in unreadable or not found.flaws else ""  # counted above
            cells = (f"{found.samples:,}", flaws, *lengths, found.too_long or "")
            table.add_row(report.name if number == 0 else "", part, *map(str, cells))
    if table.row_count:
        console.print(table)
    _say_what_flaws_do(reports, recipe, console)
    if any(part.samples > MEASURED for report in reports for part in report.parts.values()):
        _say(console, f"tokens: of {MEASURED} samples a part, drawn by the seed")
    for report, task in zip(reports, recipe.tasks):
        _list(console, report.errors, report.name)
        for part, flawed in report.unreadable().items():
            _list(console, [flaw.line(report.name) for flaw in flawed], f"{report.name}, {part}")
        for part, found in report.parts.items():
            if found.mute:
                _say(console, f"too long: {report.name}, {part}: of {found.mute}, nothing of an answer would be left")
        answers = [length for found in report.parts.values() for length in found.answers]
        cut = sum(length > task.max_new_tokens for length in answers)
        if cut and task.metric is not None:
            _say(
                console,
                f"{report.name}: {cut} of {len(answers)} answers are longer than max_new_tokens: {task.max_new_tokens}",
            )
        for (one, other), (samples, media) in report.shared.items():
            _say(
                console,
                f"shared: {report.name}: {samples} samples and {media} images or clips of {one} are also in {other}",
            )
    for report in reports:
        if report.example:
            console.rule(f"{report.name}, as the model sees it; {OPEN}supervised{CLOSE}")
            _say(console, report.example, kept="\n\t")


def _say_what_flaws_do(reports: Sequence[TaskReport], recipe: Recipe, console: Console) -> None:
    count = sum(len(flaws) for report in reports for flaws in report.unreadable().values())
    if not count:
        return
    samples = "1 sample" if count == 1 else f"{count:,} samples"
    if recipe.data.on_error == "skip":
        _say(console, f"left out by data.on_error: skip: {samples}")
    else:
        _say(console, f"train will refuse this: {samples} cannot be read; data.on_error: skip leaves such samples out")


def _list(console: Console, lines: Sequence[str], where: str) -> None:
    for line in lines[:SHOWN]:
        _say(console, f"unreadable: {line}")
    if len(lines) > SHOWN:
        _say(console, f"... and {len(lines) - SHOWN} more in {where}")


def _say(console: Console, text: str, kept: str = "") -> None:
    """Print a text from files as it is: no markup, emoji codes or escape sequences, no line broken."""
    console.print(plain(text, kept), soft_wrap=True)
