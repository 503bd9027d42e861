"""A checkpoint, a mixture and one finished balancing: made once, only read."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from balancing import _mixture as mixture
from equipoise.balancing.run import Balancing, balance
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe
from training import _checkpoint as tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture")
    for name in mixture.TASKS:
        mixture.make_task(folder / name, name)
    return folder


@pytest.fixture(scope="session")
def content(checkpoint: Path, data: Path) -> Callable[..., dict[str, Any]]:
    """The mixture's recipe as plain data."""
    return lambda **cotbal: mixture.settings(checkpoint, data, **cotbal)


@pytest.fixture(scope="session")
def recipe(content: Callable[..., dict[str, Any]]) -> Recipe:
    return parse_recipe(content(), "tiny")


@pytest.fixture(scope="session")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Balancing:
    """CoTBal, compared with one model per task and with equal weights; never interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    return balance(recipe, folder, Console(file=io.StringIO()), compare=("stl", "ew"))
