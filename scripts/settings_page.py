"""A recipe's settings in Markdown, made from the classes that validate it and their docstrings (docs/settings.md).

`python scripts/settings_page.py` prints them.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from equipoise.recipe import Coordination, CoTBal, Data, Lora, Model, Task, TaskWeighting, Train

#: Key path to the class that holds its settings, in the order of a recipe.
SECTIONS: dict[str, Any] = {
    "model": Model, "model.lora": Lora, "tasks": Task, "data": Data, "balance.modules": Coordination,
    "balance.tasks": TaskWeighting, "balance.cotbal": CoTBal, "train": Train,
}  # fmt: skip
WORDS = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", Path: "path", Any: "anything"}
SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Setting:
    """One key of a recipe: its name, what it takes, its default as YAML (None where it must be given), its meaning."""

    name: str
    takes: str
    default: str | None
    meaning: str


def settings(section: str) -> list[Setting]:
    """The settings of a section, without those that are sections themselves."""
    cls = SECTIONS[section]
    meanings, hints = meanings_of(cls), get_type_hints(cls, include_extras=True)
    return [
        Setting(name, takes(hints[name]), default, meanings.get(name, ""))
        for name, default in _defaults(cls).items()
        if f"{section}.{name}" not in SECTIONS
    ]


def meanings_of(cls: type) -> dict[str, str]:
    """What a class's docstring says of its attributes; of several in one entry, the same of each."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    meanings = {}
    for entry in filter(str.strip, re.split(r"\n(?=    \S)", f"\n{text}")):
        names, colon, meaning = entry.partition(": ")
        if not colon:
            raise ValueError(f"{cls.__name__}: found {entry!r} below Attributes; expected NAME: MEANING")
        meanings |= dict.fromkeys(names.strip().split(", "), " ".join(meaning.split()))
    return meanings


def takes(hint: Any) -> str:
    """A type hint as a writer of YAML would say it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return takes(arguments[0]) + _bounds(arguments[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments) if len(arguments) < 3 else _listed(arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else takes(part) for part in arguments)
    if origin is list:
        return f"list of {takes(arguments[0])}s"
    if origin is dict:
        return f"map of {takes(arguments[0])} to {takes(arguments[1])}"
    return WORDS[hint]


def page() -> str:
    """All of it, a heading a section."""
    return "\n".join(_page())


def _page() -> Iterator[str]:
    for section, cls in SECTIONS.items():
        yield f"## `{section}` {{ #{section} }}\n\n{inspect.cleandoc(cls.__doc__ or '').partition(chr(10))[0]}\n"
        for setting in settings(section):
            default = "must be given" if setting.default is None else f"default `{setting.default}`"
            meaning = setting.meaning
            if meaning[1:2].islower() or meaning.startswith("a "):  # a word, and no symbol
                meaning = meaning[0].upper() + meaning[1:]
            yield f"`{setting.name}`{{ #{section}.{setting.name} }}: {setting.takes}; {default}\n\n:   {meaning}\n"


def _defaults(cls: Any) -> dict[str, str | None]:
    """Names and defaults of the fields of a model or of a pydantic dataclass."""
    fields = getattr(cls, "model_fields", None) or cls.__pydantic_fields__
    return {
        name: None if field.is_required() else _yaml(field.get_default(call_default_factory=True))
        for name, field in fields.items()
    }


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(values: tuple[Any, ...]) -> str:
    return f"one of {', '.join(f'`{value}`' for value in values)}"


def _bounds(constraints: tuple[Any, ...]) -> str:
    """The bounds of a number in words; pydantic keeps them in objects of its own, some of them inside a Field."""
    parts = [part for constraint in constraints for part in (constraint, *getattr(constraint, "metadata", ()))]
    found = {name: getattr(part, name) for part in parts for name in SIGNS if getattr(part, name, None) is not None}
    bounds = [f"{words} {found[name]:g}" for name, words in SIGNS.items() if name in found]
    return f" ({' and '.join(bounds)})" if bounds else ""


if __name__ == "__main__":
    print(page())
