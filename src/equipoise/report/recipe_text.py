"""A run's `recipe.yaml`, which nobody has checked, as plain data of bounded size; and its text without what is secret.

A page of YAML can stand for more than fits into memory, or hold itself. Data that comes from here is a finite tree of a
few thousand values, whatever the file holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import yaml

DEPTH, VALUES, LETTERS = 32, 5_000, 200_000
"""Most levels, values (what is referred to twice counts twice) and letters of a recipe that is read as data."""

HIDDEN = "(hidden)"
"""What stands in the place of a secret."""

_BITS = 300  # of a whole number; Python refuses to write those of more than 4,300 digits
_SECRET = re.compile(r"token(?!iz)|secret|password|(?:access|api|auth|private)[-_ ]?key", re.IGNORECASE)
_NUMBER = re.compile(r"secret|password", re.IGNORECASE)
_KINDS = {
    f"tag:yaml.org,2002:{name}": value for name, value in (("null", None), ("bool", True), ("int", 0), ("float", 0))
}


class _Loader(yaml.SafeLoader):
    """Ends at a bound, and refuses `<<`, which PyYAML expands while it reads: thirty lines make a billion values."""

    levels = nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.levels, self.nodes = self.levels + 1, self.nodes + 1
        if self.levels > DEPTH or self.nodes > 2 * VALUES:  # keys are nodes too
            raise yaml.YAMLError("too large")
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass  # what is left of it then has no constructor, which is an error


def parsed(text: str) -> Any:
    """The recipe as mappings with texts for keys, lists, texts, numbers, booleans and None.

    None also where it is no YAML, or has more than `DEPTH` levels, `VALUES` values or `LETTERS` letters.
    """
    if len(text) > LETTERS:
        return None
    try:
        return _plain(yaml.load(text, _Loader), iter(range(VALUES)), DEPTH)
    except Exception:  # PyYAML raises what it likes on odd scalars; StopIteration ends a count
        return None


def secrecy(key: str, around: str = "") -> str:
    """Why a value may be secret: the keys that speak of tokens, passwords and the like, its own or around it."""
    return f"{around} {key}" if _SECRET.search(key) else around


def is_secret(why: str, value: Any) -> bool:
    """Whether a value must not be shown. A number of tokens is no secret."""
    if not why or value is None or isinstance(value, bool):
        return False
    return not isinstance(value, int | float) or bool(_NUMBER.search(why))


def without_secrets(text: str) -> str:
    """The text with `HIDDEN` in the place of each secret; where it is no YAML, of the rest of the line."""
    try:
        root = yaml.compose(text, _Loader) if len(text) <= LETTERS else None
    except Exception:
        root = None
    if root is None:
        return "".join(map(_without_secret, text.splitlines(keepends=True)))
    for start, end in sorted(_places(root), reverse=True):
        # A block of text ends with its line.
        text = text[:start] + HIDDEN + ("\n" if text[start:end].endswith("\n") else "") + text[end:]
    return text


def _plain(value: Any, left: Iterator[int], depth: int) -> Any:
    next(left)
    if depth == 0:
        raise ValueError("too deep")
    if isinstance(value, dict):
        return {str(_scalar(key)): _plain(item, left, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, left, depth - 1) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> str | int | float | None:
    """The value; in words what JSON does not have, or what is too long to be written."""
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"(a number of {value.bit_length()} bits)"
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value) if isinstance(value, date) else f"({type(value).__name__})"


def _without_secret(line: str) -> str:
    found = _SECRET.search(line)
    colon = line.find(":", found.end()) if found else -1
    return line if colon < 0 else f"{line[: colon + 1]} {HIDDEN}\n"


def _places(root: yaml.Node) -> set[tuple[int, int]]:
    """First letter and end of each scalar that is secret. A node may be its own descendant."""
    found: set[tuple[int, int]] = set()
    seen: set[tuple[int, bool, bool]] = set()
    todo: list[tuple[yaml.Node, str]] = [(root, "")]
    while todo:
        node, why = todo.pop()
        state = id(node), bool(why), is_secret(why, 0)
        if state in seen:
            continue
        seen.add(state)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                todo.append((value, secrecy(key.value if isinstance(key, yaml.ScalarNode) else "", why)))
        elif isinstance(node, yaml.SequenceNode):
            todo += [(item, why) for item in node.value]
        elif is_secret(why, _KINDS.get(node.tag, node.value)):
            found.add((node.start_mark.index, node.end_mark.index))
    return found
