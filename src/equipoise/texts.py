"""What other people wrote, as part of a line of ours: names and values in messages and on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

BITS = 300  # of a whole number that is written out; Python refuses to write those of more than 4,300 digits


def printable(text: str, kept: str = "") -> str:
    """The text with escapes for what would steer a terminal or end a line, but for the characters in `kept`."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in kept else letter.encode("unicode_escape").decode()
        for letter in text
    )


def shown(value: Any, most: int = 60) -> str:
    """The beginning of `repr(value)`, of at most so many characters.

    No more of it is written than that: a list of lists that are one list may stand for more than fits into memory.
    """
    text = ""
    for piece in _pieces(value, most):
        text += piece
        if len(text) >= most:
            break
    return text[:most]


def _pieces(value: Any, most: int) -> Iterator[str]:
    if isinstance(value, dict):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield ", " if number else ""
            yield from _pieces(key, most)
            yield ": "
            yield from _pieces(item, most)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "[" if isinstance(value, list) else "("
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(item, most)
        yield "]" if isinstance(value, list) else ",)" if len(value) == 1 else ")"
    elif isinstance(value, str | bytes | bytearray):
        yield repr(value[: most + 1])
    elif isinstance(value, int) and value.bit_length() > BITS:
        yield f"a whole number of {value.bit_length():,} bits"
    elif isinstance(value, set | frozenset):
        yield repr(set(islice(value, most)))
    else:
        yield repr(value)[: most + 1]
