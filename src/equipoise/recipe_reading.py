"""Reads a recipe from YAML, with overrides by `key.path=value`.

Everything is validated before any model loads; a mistake is one line that names the key path, what was found there
and what is allowed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from equipoise.errors import RecipeError
from equipoise.opening import read_plain
from equipoise.recipe import PACKAGED, Recipe
from equipoise.texts import shown
from equipoise.yaml_reading import PlainLoader, load

LARGEST = 1_000_000  # bytes of a recipe
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's words for a key that is not there
LEVELS = 20  # of keys in an override
LONGEST = 1_000  # letters of a message


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: a YAML file; relative paths inside it are relative to the working directory.
        overrides: `key.path=value` each, the value read as YAML; list items by their number.

    Raises:
        RecipeError: anything a user could mend.
    """
    try:
        text = read_plain(path, LARGEST).decode("utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not YAML ({error})") from error
    content = _yaml(text, f"{path}:")
    if not isinstance(content, dict):
        sections = ", ".join(Recipe.model_fields)
        raise RecipeError(f"{path}: found {_shown(content)}; a recipe is a mapping with {sections}")
    for override in overrides:
        _override(content, override)
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Validate a recipe given as plain data; `source` names it in messages.

    Raises:
        RecipeError: it is not valid, or names a file that is not there.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(error, content)}") from None
    for task in recipe.tasks:
        for key, path in (("path", task.path), *(("media_roots", root) for root in task.media_roots)):
            if path is not None and not _exists(path):
                raise RecipeError(f"{source}: tasks.{task.name}.{key}: {_one_line(str(path))} does not exist")
        if task.reader not in PACKAGED and task.path is None:
            raise RecipeError(f"{source}: tasks.{task.name}.path: is missing; the {task.reader} reader needs one")
    path = Path(recipe.model.path)
    looks_local = path.is_absolute() or recipe.model.path.startswith(".") or len(path.parts) > 2
    if looks_local and not recipe.model.is_embedded and not (_exists(path) and path.is_dir()):
        raise RecipeError(f"{source}: model.path: {_one_line(str(path))} is not a folder")
    return recipe


class _Loader(PlainLoader):
    unique = True  # of two sections of one name the first would be lost without a word


def _apart(value: Any) -> Any:
    """The value with a copy for each place that refers to one: an override is for one of them."""
    if isinstance(value, dict):
        return {key: _apart(item) for key, item in value.items()}
    return [_apart(item) for item in value] if isinstance(value, list) else value


def _yaml(text: str, source: str) -> Any:
    """Read YAML, without tags that build objects; nothing in it is one object in two places."""
    try:
        return _apart(load(text, _Loader))
    except yaml.YAMLError as error:
        raise RecipeError(f"{source} is not YAML ({_one_line(str(error))})") from error


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {_shown(override)}: expected key.path=value, for example train.seed=1")
    *parents, last = key.split(".")
    key = key if len(key) <= 200 else f"{key[:200]}..."
    value = _yaml(text, f"override {key}: {_shown(text)}")
    if len(parents) >= LEVELS:
        raise RecipeError(f"override {key}: it has {len(parents) + 1} levels; no setting is deeper than {LEVELS}")
    node: Any = content
    for part in parents:
        if isinstance(node, list):
            node = node[_index(node, part, key)]
        elif isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        else:
            raise RecipeError(f"override {key}: {part:.60} is below {_shown(node)}, which has no keys")
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise RecipeError(f"override {key}: {last:.60} is below {_shown(node)}, which has no keys")


def _index(items: list[Any], part: str, key: str) -> int:
    """The place of a list item, by its number or (tasks) by its name."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    if part.isdecimal() and len(part) < 10 and int(part) < len(items):
        return int(part)
    raise RecipeError(
        f"override {key}: no item {shown(part)}; there are {len(items)}: {', '.join(map(_name, names)):.300}"
    )


def _explain(error: ValidationError, content: dict[str, Any]) -> str:
    """The first of pydantic's errors, as one line."""
    errors = error.errors(include_url=False)
    # A setting that is a number or a map reports both readings; a map's own error says more than "not a number".
    first = next((e for e in errors if not (e["type"] == "float_type" and isinstance(e.get("input"), dict))), errors[0])
    *above, last = first["loc"] or ("",)
    unknown = first["type"] in UNKNOWN  # which may look like anything
    location = [str(part) for part in (*above, last) if not _is_branch(part) or (unknown and part is last)]
    return _one_line(_sentence(first, location, ".".join(_named(location, content))))


def _named(location: list[str], content: dict[str, Any]) -> list[str]:
    """A key path with a task's name for its number, where it has one of its own."""
    if location[:1] != ["tasks"] or len(location) < 2 or location[2:] == ["name"]:
        return location
    names = [task.get("name") if isinstance(task, dict) else None for task in content["tasks"]]
    name = names[int(location[1])]
    return ["tasks", name, *location[2:]] if isinstance(name, str) and names.count(name) == 1 else location


def _sentence(first: Any, location: list[str], path: str) -> str:
    if first["type"] in UNKNOWN:
        allowed = _keys_at(location[:-1])
        return f"{path}: unknown key; {_hint(location[-1], allowed)}allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{path}: is missing"
    if first["type"] == "value_error":
        return f"{path}: {first['ctx']['error']}".removeprefix(": ")
    found = first.get("input")
    words = re.findall(r"'([^']*)'", first["msg"]) if first["type"] == "literal_error" else []
    hint = _hint(found if isinstance(found, str) else _shown(found), words)
    return f"{path}: found {_shown(found)}; {hint}{first['msg'][0].lower()}{first['msg'][1:]}"


def _hint(found: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(found[:100], allowed, n=1)
    return f"did you mean {close[0]}? " if close else ""


def _is_branch(part: int | str) -> bool:
    """Whether pydantic put this into the key path to name an alternative of a union; no key of ours looks like it."""
    return isinstance(part, str) and part.startswith(("constrained-float", "function-", "dict[str,"))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for the file system
        return False


def _keys_at(location: list[str]) -> list[str]:
    """The keys that are allowed at a place in a recipe."""
    node: Any = Recipe
    for part in location:
        fields = getattr(node, "model_fields", None) or getattr(node, "__pydantic_fields__", {})
        if part not in fields:
            continue  # an item's number in a list
        annotation = fields[part].annotation
        candidates = [annotation, *get_args(annotation), *(a for arg in get_args(annotation) for a in get_args(arg))]
        node = next((c for c in candidates if hasattr(c, "model_fields") or hasattr(c, "__pydantic_fields__")), node)
    return list(getattr(node, "model_fields", None) or getattr(node, "__pydantic_fields__", {}))


def _name(value: Any) -> str:
    return value if isinstance(value, str) else _shown(value)


def _shown(value: Any) -> str:
    text = shown(value, 61)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
