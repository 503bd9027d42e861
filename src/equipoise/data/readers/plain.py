"""The row that users write for their own data, whatever kind of file holds it (`jsonl`, `parquet`, `saved`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from equipoise.data.readers.files import inside
from equipoise.data.readers.reader import items_of, mapping, text_of
from equipoise.data.sample import Box, Role, Sample, Turn, exchange
from equipoise.texts import shown

ROLES = ("system", "user", "assistant")
Find = Callable[[Path, Any, str], Path]


def plain_sample(task: str, folder: Path, place: str, row: Any, find: Find = inside) -> Sample:
    """Make a sample of a row with the keys that `equipoise.data.readers.jsonl` lists.

    Args:
        folder: paths of images and audio are relative to it.
        place: the id of a row that has none.
        find: gives the path of an image or clip, as `inside` does, from what the row has for it.

    Raises:
        ValueError, KeyError, TypeError: the row is not as described there.
    """
    row = mapping(row)
    if row.get("messages") is not None:
        messages = [mapping(message) for message in items_of(row["messages"], "messages")]
        turns = tuple(Turn(_role(message["role"]), text_of(message["content"], "content")) for message in messages)
    else:
        prompt = text_of(row["prompt"], "prompt", may_be_empty=True)  # a picture alone can be a question
        turns = exchange(prompt, text_of(row["answer"], "answer"))
    check_turns(turns)
    references = row.get("references")
    if references is None:
        references = [turns[-1].text]
    id = row["id"] if row.get("id") is not None else place
    if isinstance(id, dict | list):
        raise TypeError(f"id is {shown(id)}; expected a text or a number")
    return Sample(
        id=str(id),
        task=task,
        turns=turns,
        images=_files(folder, row, "image", find),
        audios=_files(folder, row, "audio", find),
        references=tuple(text_of(reference, "a reference") for reference in items_of(references, "references")),
        box=box_of(row["box"]) if row.get("box") is not None else None,
    )


def check_turns(turns: tuple[Turn, ...]) -> None:
    """Raise a ValueError unless a conversation begins with a user and ends with an answer."""
    spoken = [turn.role for turn in turns]
    if spoken[:1] == ["system"]:
        spoken = spoken[1:]
    if spoken[:1] != ["user"] or spoken[-1] != "assistant" or "system" in spoken:
        raise ValueError("a conversation must begin with a user, after at most one system turn, and end with an answer")


def box_of(value: Any) -> Box:
    """A box as shares of the image's width and height."""
    edges = items_of(value, "box")
    if len(edges) != 4 or not all(isinstance(edge, int | float) and 0 <= edge <= 1 for edge in edges):
        raise ValueError(f"box is {shown(value)}; expected left, top, right, bottom as shares from 0 to 1")
    left, top, right, bottom = map(float, edges)
    if left > right or top > bottom:
        raise ValueError(f"box is {shown(value)}; its left edge lies beyond its right, or its top below its bottom")
    return left, top, right, bottom


def _role(value: Any) -> Role:
    if value not in ROLES:
        raise ValueError(f"role is {shown(value)}; allowed: {', '.join(ROLES)}")
    return cast(Role, value)


def _files(folder: Path, row: dict[str, Any], kind: str, find: Find) -> tuple[Path, ...]:
    found: Any = row.get(f"{kind}s") or row.get(kind) or []
    return tuple(find(folder, name, kind) for name in (found if isinstance(found, list) else [found]))
