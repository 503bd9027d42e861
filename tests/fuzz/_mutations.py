"""Hypothesis strategies for what may stand in a file: hostile values, spoiled structures, spoiled bytes."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

#: Must never reach a page as markup.
MARKUP = "<img src=x onerror=pwned()>"
#: Must never reach a terminal.
ESCAPE = "\x1b[31m"
HOSTILE = (
    "", " ", "\0", "a\0b", "\ud800", "\u202eabc", "\ufeff", "\r\n", ESCAPE, "\x1b]0;title\x07", MARKUP, "</script>",
    "[red]", "[/red]", "[bold]x[/]", ":smile:", "{0}", "{x.__class__}", "{", "%s%n%d", "${HOME}", "`id`", "=1+1",
    "@SUM(A1)",
    "../../x", "/etc/passwd", "/dev/zero", "..", ".", "~", "file:///etc/passwd", "http://127.0.0.1:1/x", "CON",
    "nul.txt",
    "A" * 5_000, "[" * 2_000, "\u0301" * 300, "1" * 5_000, "-0", "1e999", "0x10", "1_000", "nan", "NaN", "Infinity",
    "null", "true",
    "{{ 7*7 }}", "{% for", "<image>" * 50, "<audio>", "```" * 50, "\n1. \n1. ", "x: y", "&a *a",
    "!!python/object:os.system",
    "\\input{/etc/passwd}", "$(id)", "\u2028", "\x85", "e" + "\u0332" * 50,
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2**31, -(2**31), 2**63, 2**64, 10**30, 10**400, 0.0, -0.0, 1e-320, 1e308, -1e308, 0.1, 1.5, math.inf,
    -math.inf,
    math.nan,
)  # fmt: skip

texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(), st.floats())
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)


def _nested(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


values = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=6,
    ),
    st.builds(_nested, st.sampled_from([1, 20, 200]), st.just(None)),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in plain data, not too deep."""
    yield path
    if len(path) > 40:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from paths(item, (*path, number))


@st.composite
def spoiled(draw: Any, template: Any, most: int = 3) -> Any:
    """The template with some of its values replaced, left out, doubled, or under other keys."""
    value = copy.deepcopy(template)
    for _ in range(draw(st.integers(1, most))):
        places = list(paths(value))
        value = _changed(draw, value, places[draw(st.integers(0, len(places) - 1))])
    return value


def _changed(draw: Any, value: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return draw(values)
    node = value
    for part in path[:-1]:
        node = node[part]
    last, how = path[-1], draw(st.sampled_from(("replace", "replace", "replace", "drop", "double", "rename")))
    if how == "drop":
        del node[last]
    elif how == "double" and isinstance(node, list):
        node.append(copy.deepcopy(node[last]))
    elif how == "rename" and isinstance(node, dict):
        node[draw(texts)] = node.pop(last)
    else:
        node[last] = draw(values)
    return value


def as_json(value: Any) -> bytes:
    """JSON as Python writes it, with what is no JSON (NaN) and halves of characters."""
    try:
        return json.dumps(value).encode()
    except (RecursionError, ValueError):
        return b"[" * 3_000


@st.composite
def spoiled_json(draw: Any, template: Any) -> bytes:
    """A JSON file, spoiled in its values or in its bytes, or in both."""
    how = draw(st.integers(0, 9))
    content = as_json(draw(spoiled(template)) if how < 8 else template)
    if how >= 6:
        content = draw(spoiled_bytes(content))
    return content


PIECES = (
    b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00", b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc3", b"\n", b"\r", b'"', b"'", b",", b"{", b"}", b"[", b"]", b":", b"9" * 400, b"1e999", b"-", b"NaN",
    b"[" * 400, b"*a", b"&a ",
    b"<<: ", b"!!python/name:os.system ", b"\t", b"%s", b"\x1b[31m",
)  # fmt: skip


@st.composite
def spoiled_bytes(draw: Any, content: bytes, most: int = 4) -> bytes:
    """The bytes with pieces changed, cut out, put in, doubled, or with their end cut off."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(len(made) - 1, 0)))
        # Headers decide most: look there as often as in all the rest.
        place = place % 64 if draw(st.booleans()) and made else place
        how = draw(st.sampled_from(("byte", "put", "over", "cut", "double", "end")))
        if how == "byte" and made:
            made[min(place, len(made) - 1)] = draw(st.integers(0, 255))
        elif how == "put":
            made[place:place] = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        elif how == "over":
            piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
            made[place : place + len(piece)] = piece
        elif how == "cut":
            del made[place : place + draw(st.integers(1, 40))]
        elif how == "double":
            size = draw(st.integers(1, 400))
            made[place:place] = made[place : place + size]
        elif how == "end":
            del made[place:]
    return bytes(made)


def any_of(contents: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of some files, spoiled."""
    return st.sampled_from(range(len(contents))).flatmap(lambda number: spoiled_bytes(contents[number]))
