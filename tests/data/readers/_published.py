"""Fixtures in the owners' layout, and what the readers' tests do with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError

FIXTURES = Path(__file__).parents[1] / "fixtures"
Read = Callable[..., Any]


def copied(name: str, folder: Path) -> Path:
    """A copy of a fixture that a test may break."""
    return shutil.copytree(FIXTURES / name, folder / name)


def edited(file: Path, old: str, new: str) -> None:
    """Replace a text that must be in a file once."""
    content = file.read_text(encoding="utf-8")
    assert content.count(old) == 1
    file.write_text(content.replace(old, new), encoding="utf-8")


def samples(read: Read, *args: Any, **options: Any) -> list[Sample]:
    """What a reader yields where nothing is flawed."""
    rows = list(read("own", *args, **options))
    assert [row for row in rows if isinstance(row, Flaw)] == []
    return rows


def flaws(read: Read, *args: Any, **options: Any) -> list[Flaw]:
    """The flawed rows, each with a reason of one line."""
    found = [row for row in read("own", *args, **options) if isinstance(row, Flaw)]
    assert all(len(flaw.line("own").splitlines()) == 1 for flaw in found)
    return found


def mistake(read: Read, *args: Any, **options: Any) -> str:
    """The one line that a reader ends with."""
    with pytest.raises(DataError) as caught:
        list(read("own", *args, **options))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
