"""The pages made from code say all that the code has: every setting, every command, every public name."""

from __future__ import annotations

import re

import _pages
import pytest
import settings_page
import yaml
from commands_page import commands
from docs_hooks import filled
from typer.main import get_command

import equipoise
from equipoise.cli import app
from equipoise.recipe import Recipe

DOCS = _pages.ROOT / "docs"
SETTINGS = [(section, setting) for section in settings_page.SECTIONS for setting in settings_page.settings(section)]


def shown(name: str) -> str:
    return filled((DOCS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("section", "setting"), SETTINGS, ids=[f"{section}.{setting.name}" for section, setting in SETTINGS]
)
def test_every_setting_has_a_meaning(section: str, setting: settings_page.Setting) -> None:
    assert setting.meaning, f"{section}.{setting.name}: say what it means, below Attributes in its class's docstring"
    assert f"{{ #{section}.{setting.name} }}" in shown("settings.md")


@pytest.mark.parametrize("section", settings_page.SECTIONS)
def test_docstrings_describe_no_setting_that_is_not_there(section: str) -> None:
    fields = {name for place, name in _keys() if place == section}
    assert set(settings_page.meanings_of(settings_page.SECTIONS[section])) <= fields


def test_the_page_has_every_key_of_a_recipe_with_its_default() -> None:
    """Held against what a whole recipe writes out, which knows nothing of the page."""
    recipe = Recipe.model_validate({"model": {"path": "x"}, "tasks": [{"name": "a", "reader": "easy_vqa"}]})
    written = yaml.safe_load(recipe.to_yaml())
    listed = {f"{section}.{setting.name}": setting for section, setting in SETTINGS}
    for section in settings_page.SECTIONS:
        node = written
        for part in section.split("."):
            node = node[part]
        for name, value in (node[0] if isinstance(node, list) else node).items():
            if f"{section}.{name}" in settings_page.SECTIONS:
                continue
            default = listed.pop(f"{section}.{name}").default
            assert default is None or yaml.safe_load(default) == value or float(default) == value
    assert [(name, setting.default) for name, setting in listed.items()] == [
        ("balance.cotbal.budget", "null")
    ]  # unsaid


def test_bounds_and_choices_are_told() -> None:
    settings = {f"{section}.{setting.name}": setting for section, setting in SETTINGS}
    assert settings["balance.cotbal.alpha"].takes == "number (at least 0 and at most 1)"
    assert settings["model.dtype"].takes == "one of `auto`, `float32`, `bfloat16`, `float16`"
    assert settings["train.max_steps"].takes == "whole number (at least 1) or null"
    assert settings["model.path"].default is None


def test_every_command_is_listed() -> None:
    page = shown("commands.md")
    found = [" ".join(path) for path, _ in commands(get_command(app))]
    assert "equipoise data fetch" in found
    for command in found:
        assert f"## {command} {{" in page
    for _, command in commands(get_command(app)):
        assert command.help
        for parameter in command.params:
            assert parameter.help or parameter.name == "help", f"{command.name}: {parameter.name} has no help"


def test_every_public_name_is_in_the_api() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    assert set(equipoise.__all__) <= names


def _keys() -> list[tuple[str, str]]:
    return [
        (section, name)
        for section, cls in settings_page.SECTIONS.items()
        for name in (getattr(cls, "model_fields", None) or cls.__pydantic_fields__)
    ]
