"""YAML that somebody else wrote, as plain data of bounded size.

A page of YAML can stand for more than fits into memory (aliases of aliases, `<<`), hold itself, nest without end, or
name objects of Python's to be made. What comes from here is mappings, lists, texts, numbers, truth values, dates and
None, no more of them and no deeper than allowed, what is referred to twice counted twice.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

DEPTH, VALUES = 32, 50_000
LONGEST_NUMBER = 100  # letters; 1:1:1:... is a number too, and takes its square to read
REFUSED = ("binary", "omap", "pairs", "set")  # of YAML's own kinds; the rest of the program knows JSON's


class Bounds(Composer):
    """Mixed into a loader, ends it at a bound. Sizes are known as soon as a node is whole, before anything is built.

    Attributes:
        depth, values: the bounds; keys count as values.
        unique: whether a key that stands twice in a mapping is refused.
    """

    depth = DEPTH
    values = VALUES
    unique = False

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A node, if it is not too large."""
        known = self.__dict__.setdefault("_sizes", {})  # by node: values in it, and levels
        self.__dict__["_level"] = self.__dict__.get("_level", 0) + 1
        if self.__dict__["_level"] > self.depth:
            raise yaml.YAMLError(f"it has more than {self.depth} levels")
        is_alias = self.check_event(yaml.AliasEvent)  # type: ignore[attr-defined]  # of the parser
        node = super().compose_node(parent, index)
        self.__dict__["_level"] -= 1
        if node is None:
            return node
        if is_alias:
            if id(node) not in known:
                raise yaml.YAMLError(f"a part of it holds itself{_place(node)}")
            return node
        if self.unique and isinstance(node, MappingNode):
            _refuse_doubles(node)
        parts = [known[id(part)] for part in _parts(node)]
        size = 1 + sum(part for part, _ in parts), 1 + max((level for _, level in parts), default=0)
        if size[0] > self.values:
            raise yaml.YAMLError(f"it stands for more than {self.values:,} values")
        if size[1] > self.depth:
            raise yaml.YAMLError(f"it has more than {self.depth} levels")
        known[id(node)] = size
        return node


def load(text: str | bytes, loader: type[Any]) -> Any:
    """The document as plain data, by a loader with `Bounds`.

    Raises:
        yaml.YAMLError: it is no YAML, or larger than allowed. The message may be of several lines.
    """
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # PyYAML raises what Python's conversions raise on odd scalars
        raise yaml.YAMLError(str(error) or type(error).__name__) from error


def _construct_int(loader: Any, node: ScalarNode) -> int:
    if len(node.value) > LONGEST_NUMBER:
        raise yaml.YAMLError(f"a whole number of {len(node.value):,} letters{_place(node)}")
    value: int = loader.construct_yaml_int(node)
    return value


def _construct_float(loader: Any, node: ScalarNode) -> float:
    if len(node.value) > 10 * LONGEST_NUMBER:
        raise yaml.YAMLError(f"a number of {len(node.value):,} letters{_place(node)}")
    value: float = loader.construct_yaml_float(node)
    return value


def _construct_text(loader: Any, node: ScalarNode) -> str:
    value: str = loader.construct_yaml_str(node)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise yaml.YAMLError(f"half of a character (a lone surrogate){_place(node)}") from error
    return value


def _with_plain_kinds(loader: type[Any]) -> type[Any]:
    refused = {f"tag:yaml.org,2002:{kind}" for kind in REFUSED}
    constructors = {tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag not in refused}
    constructors["tag:yaml.org,2002:str"] = _construct_text
    constructors["tag:yaml.org,2002:int"] = _construct_int
    constructors["tag:yaml.org,2002:float"] = _construct_float
    loader.yaml_constructors = constructors
    return loader


@_with_plain_kinds
class PlainLoader(Bounds, yaml.SafeLoader):
    """In Python, whose messages are the better ones."""


@_with_plain_kinds
class FastLoader(Bounds, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """By libyaml, where PyYAML was built with it: several times as fast, for whole datasets."""

    values = 1_000_000

    def __init__(self, stream: Any):
        super(Composer, self).__init__(stream)  # the loader's own; libyaml's composer is of another class
        Composer.__init__(self)


def _parts(node: Node) -> list[Node]:
    if isinstance(node, SequenceNode):
        return list(node.value)
    return [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else []


def _refuse_doubles(node: MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if (key.tag, key.value) in seen:
                raise yaml.YAMLError(f"the key {key.value!r:.60} stands twice{_place(key)}")
            seen.add((key.tag, key.value))


def _place(node: Node) -> str:
    mark = node.start_mark
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
