"""Finished runs made by hand, without training: a recipe, a model's folder, done.json; and commands in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equipoise.recipe import Recipe
from equipoise.training.run_directory import RunDirectory


def finished_run(folder: Path, model: Path | str, *tasks: dict[str, Any], **sections: Any) -> RunDirectory:
    """A run whose tuned model is an untuned one.

    Args:
        model: a folder of weights, which is copied, or the name of an embedded stack.
        tasks: of the recipe.
        sections: further sections of the recipe.
    """
    content = {"model": {"path": str(model), "lora": None}, "tasks": list(tasks), **sections}
    run = RunDirectory(folder)
    run.path.mkdir(parents=True, exist_ok=True)
    run.recipe_file.write_text(Recipe.model_validate(content).to_yaml(), encoding="utf-8")
    if isinstance(model, Path):
        shutil.copytree(model, run.model)
    run.done_file.write_text("{}", encoding="utf-8")
    return run


def write_split(folder: Path, split: str, rows: Sequence[dict[str, Any]]) -> Path:
    """One split for the `jsonl` reader."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def rows(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def files(folder: Path) -> set[str]:
    """All files below a folder but locks, by their paths in it."""
    return {
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and ".locks" not in file.parts
    }
