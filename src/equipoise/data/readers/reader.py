"""What a reader is, and what its rows may be.

A reader turns a dataset's files, as their owners publish them, into samples, one at a time, so that reading a large
dataset takes no memory. A row that cannot become a sample becomes a `Flaw`; whether that ends the run or is counted
and left out is not the reader's to decide. A file that is missing or broken as a whole is a `DataError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.texts import printable, shown

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flaw:
    """A row that is no sample.

    Attributes:
        id: the sample's, or where in the file the row stands.
        path: the file to look at: the image or clip, else the one that holds the row.
        reason: what is wrong, and what is allowed.
    """

    id: str
    path: str
    reason: str

    def line(self, task: str) -> str:
        """The flaw as one line, whatever the file has for an id or a path, and however long these are."""
        return printable(f"task {task}: sample {self.id!s:.200}: {self.path:.1000}: {self.reason:.1000}")


class Unusable(ValueError):
    """Raised where a row cannot become a sample, about a file other than the one that holds the row."""

    def __init__(self, reason: str, path: Path):
        super().__init__(reason)
        self.path = path


@dataclass(frozen=True)
class Reader:
    """One dataset's reader.

    Attributes:
        read: called with the task's name, a split, a path (None for packaged data) and the recipe's `options`; yields
            samples and flaws.
        splits: the names it takes; empty where the files' names decide.
        needs_path: whether a recipe must give one.
        response_format: put below each question, unless the recipe words its own (CoTBal, Table 1).
        unanswered: splits whose answers the owners keep secret: predictions can be made and not scored.
    """

    read: Callable[..., Iterator[Sample | Flaw]]
    splits: tuple[str, ...] = ()
    needs_path: bool = True
    response_format: str | None = None
    unanswered: frozenset[str] = frozenset()


def samples_of(
    items: Iterable[tuple[str, T]], make: Callable[[T], Sample | Iterable[Sample]], source: Path
) -> Iterator[Sample | Flaw]:
    """Make samples of a file's items; an item that `make` refuses becomes a flaw.

    Args:
        items: each with its id, or its place in the file.
        make: returns one sample or several; raises ValueError (`Unusable` to name another file), KeyError or TypeError
            with a text that says what was found and what is allowed.
        source: the file that holds the items.
    """
    for place, item in items:
        try:
            made = make(item)
            yield from (made,) if isinstance(made, Sample) else tuple(made)
        except (ValueError, KeyError, TypeError, RecursionError, ArithmeticError) as error:
            path = error.path if isinstance(error, Unusable) else source
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            yield Flaw(place, str(path), " ".join(reason.split()))


def check_split(task: str, reader: str, split: str, allowed: Iterable[str]) -> None:
    """Raise a DataError unless the reader has the split."""
    if split not in allowed:
        raise DataError(f"task {task}: {reader} has no split {shown(split)}; allowed: {', '.join(allowed)}")


def check_option(task: str, reader: str, option: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise a DataError unless the option's value is among the allowed ones."""
    if value not in allowed:
        raise DataError(
            f"task {task}: {reader} has no {option} {shown(value)}; allowed: {', '.join(str(one) for one in allowed)}"
        )


def mapping(value: Any) -> dict[str, Any]:
    """The value, which must be a JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"found {shown(value)}; expected an object")
    return value


def keys_of(row: dict[str, Any]) -> str:
    """What a row has, for a message that something is missing."""
    return f"keys: {', '.join(row) or 'none':.120}"


def items_of(value: Any, name: str) -> list[Any]:
    """The value, which must be a list of at least one item."""
    if not isinstance(value, list) or not value:
        raise TypeError(f"{name} is {shown(value)}; expected a list of at least one item")
    return value


def text_of(value: Any, name: str, may_be_empty: bool = False) -> str:
    """The value, which must be a text that says something, without white space around it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {shown(value)}; expected a text")
    if not value.strip() and not may_be_empty:
        raise ValueError(f"{name} is empty; expected a text")
    return value.strip()
