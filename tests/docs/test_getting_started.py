"""Somebody who has read getting-started.md alone: the page, done literally, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from _pages import ROOT, blocks_of

from equipoise.data.processing import hold_out
from equipoise.recipe_reading import parse_recipe

PAGE = ROOT / "docs" / "getting-started.md"


def test_the_pages_files_have_names() -> None:
    """What a reader is told to save is told under which name, and is what the commands then use."""
    text = PAGE.read_text(encoding="utf-8")
    for name in ("draw.py", "lights.yaml", "ask.py"):
        assert f'title="{name}"' in text
        assert f"`{name}`" in text


def test_the_picture_that_is_asked_about_was_held_out() -> None:
    """The page says so: "03.png" is red, and in the test part."""
    [text] = [block.body for block in blocks_of(PAGE) if block.language == "yaml"]
    recipe = parse_recipe(yaml.safe_load(text) | {"tasks": [yaml.safe_load(text)["tasks"][0] | {"path": "."}]}, "page")
    [task] = recipe.tasks
    sizes = {str(part): size for part, size in task.hold_out.items()}
    tested = hold_out(30, sizes, "test", f"{recipe.train.seed}/{task.name}/hold_out")
    page = PAGE.read_text(encoding="utf-8")
    [asked] = re.findall(r'Image\.open\("lights/(\d+)\.png"\)', page)
    assert int(asked) in tested
    assert f"`{asked}.png` is {('red', 'yellow', 'green')[int(asked) % 3]}" in page
    assert '("red", "yellow", "green")[number % 3]' in page


@pytest.mark.slow
def test_the_page_from_top_to_bottom(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    titles = iter(("draw.py", "lights.yaml", "ask.py"))
    printed = ""
    for block in blocks_of(PAGE):
        if block.language in ("python", "yaml"):
            (tmp_path / next(titles)).write_text(block.body, encoding="utf-8")
        if block.language != "sh" or "pip install" in block.body:  # the environment is this one
            continue
        for line in block.body.splitlines():
            words = shlex.split(line, comments=True)
            start = [sys.executable, "-m", "equipoise"] if words[0] == "equipoise" else [sys.executable]
            done = subprocess.run(
                [*start, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200
            )
            assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"
            printed = done.stdout if words[1:] == ["ask.py"] else printed
    assert printed.strip() in ("red", "yellow", "green")
    scores = json.loads((tmp_path / "runs/lights/scores.json").read_text(encoding="utf-8"))
    assert "lights" in json.dumps(scores)
    assert len((tmp_path / "runs/lights/predictions/lights.jsonl").read_text().splitlines()) == 8
    assert (tmp_path / "runs/lights/report.html").stat().st_size > 1e6
