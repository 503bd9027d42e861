"""The lines of a file that may hold anything: those that are too long for a line of ours are passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from equipoise.opening import open_plain

LONGEST = 16_000_000
"""Bytes of a line that is read; what equipoise writes is shorter by far, but for the answers of a model gone mad."""


def lines_of(file: Path) -> Iterator[tuple[int, bytes]]:
    """Position and content of each line that is not too long.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    with open_plain(file) as source:
        position = 0
        while text := source.readline(LONGEST):
            whole = text.endswith(b"\n") or len(text) < LONGEST
            if whole:
                yield position, text
            position += len(text) if whole else len(text) + _pass_over(source)


def line_at(file: Path, position: int) -> bytes:
    """The line that begins there; cut where it is too long.

    Raises:
        OSError: it cannot be read.
    """
    with open_plain(file) as source:
        source.seek(position)
        return source.readline(LONGEST)


def _pass_over(source: BinaryIO) -> int:
    """Read to the end of the line; how many bytes that was."""
    count = 0
    while text := source.readline(LONGEST):
        count += len(text)
        if text.endswith(b"\n"):
            break
    return count
