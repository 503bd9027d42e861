"""One checkpoint and one dataset for all training tests."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from equipoise.recipe import Recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from training import _checkpoint as tiny


@pytest.fixture(scope="session")
def make_recipe(checkpoint: Path, dataset: Path) -> Callable[..., Recipe]:
    """A recipe from coordination settings and training settings."""

    def make(coordination: dict[str, Any] | None = None, **settings: Any) -> Recipe:
        return tiny.recipe(checkpoint, dataset, coordination or {}, **settings)

    return make


@pytest.fixture
def run(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., RunDirectory]:
    """Train a recipe in this process, in a folder of the test's own."""

    def trained(coordination: dict[str, Any] | None = None, name: str = "run", **settings: Any) -> RunDirectory:
        return train(make_recipe(coordination, **settings), tmp_path / name, Console(file=io.StringIO()))

    return trained
