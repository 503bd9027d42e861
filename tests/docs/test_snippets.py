"""What the README and the documentation show runs: Python, recipes, commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import _pages
import pytest
import yaml
from _pages import Block, blocks
from typer.main import get_command

from equipoise.cli import app
from equipoise.data.readers import jsonl
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe

PYTHON, RECIPES, SHELL = blocks("python"), blocks("yaml"), blocks("sh", "bash")
INDENTED = re.compile(r"^    ((?:\S*/)?equipoise \S.*)$", re.MULTILINE)  # older pages' blocks
COMMANDS = [
    (str(block), line.strip())
    for block in SHELL
    for line in block.body.replace("\\\n", " ").splitlines()
    if re.match(r"(?:\S*/)?equipoise ", line.strip())
] + [
    (page.name, line)
    for page in _pages.PAGES
    for line in INDENTED.findall(_pages.FENCE.sub("", page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}), ids=lambda page: page.name)
def test_python_runs(page: Path, stand_ins: Any) -> None:
    """A page's snippets, in order, in one namespace: a later one sees what an earlier one made."""
    for block in PYTHON:
        if block.page == page and block.reason is None:
            exec(compile(block.body, str(block), "exec"), stand_ins)


@pytest.mark.parametrize("block", RECIPES, ids=str)
def test_recipe_validates(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(block.body)
    for task in content.get("tasks", []):
        if "path" in task:  # what a reader of the page has
            Path(task["path"]).mkdir(parents=True)
    content.setdefault("model", {"path": "embedded:smol-vlm"})  # a piece of a recipe
    assert isinstance(parse_recipe(content, str(block)), Recipe)


def parse(line: str) -> None:
    """Parse a command line as typer would, down to the command that it names; raises what typer raises."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = get_command(app)
    context = command.make_context("equipoise", words)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, words, parent=context)
    assert not context.args, f"left over: {context.args}"


@pytest.mark.parametrize(("place", "line"), COMMANDS, ids=[f"{place}-{line[:60]}" for place, line in COMMANDS])
def test_command_parses(place: str, line: str) -> None:
    """The command exists, and takes these arguments and options; nothing is run."""
    parse(line)


@pytest.mark.parametrize("line", ["equipoise tarin a.yaml", "equipoise train a.yaml --steps 3", "equipoise evaluate"])
def test_a_command_that_is_not_there_would_be_seen(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse(line)


def test_there_is_something_to_test() -> None:
    assert len(PYTHON) > 5
    assert len(RECIPES) > 5
    assert len(COMMANDS) > 15
    assert {block.page.name for block in PYTHON} >= {"README.md", "getting-started.md", "your-script.md"}


def test_what_is_not_run_says_why() -> None:
    for page in _pages.PAGES:
        marks = page.read_text(encoding="utf-8").count("<!-- not run")
        assert marks == sum(block.reason is not None for block in _pages.blocks_of(page)), page.name


def test_rows_of_another_trainer_become_samples(stand_ins: Any, tmp_path: Path) -> None:
    """coming-from.md's conversion gives what the jsonl reader reads."""
    for block in PYTHON:
        if block.page.name == "coming-from.md":
            exec(compile(block.body, str(block), "exec"), stand_ins)
    (tmp_path / "1.png").rename(tmp_path / "mine" / "1.png")
    (sample,) = jsonl.read("mine", "train", tmp_path / "mine")
    assert [turn.text for turn in sample.turns] == ["Who?", "Nobody."]
    assert [image.name for image in sample.images] == ["1.png"]
