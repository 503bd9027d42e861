"""A checkpoint, a mixture and one finished balancing: made once, only read."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from balancing import _mixture as mixture
from equipoise.balancing.run import Balancing, balance
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe


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


OWNER = """
import sys
from pathlib import Path
from equipoise.balancing.locks import turn
with turn(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), print):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner() -> Iterator[Callable[[Path, str, float], subprocess.Popen[str]]]:
    """Starts a process that has a node's lock until its input ends; takes the root, the lock's name, the patience."""
    started: list[subprocess.Popen[str]] = []

    def start(root: Path, name: str, patience: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(root), name, str(patience)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
