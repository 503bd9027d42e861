"""A checkpoint, a mixture, one finished balancing, and commands in processes of their own: made once, only read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from balancing import _mixture as mixture
from equipoise.balancing.run import Balancing, balance
from equipoise.recipe import Recipe, parse_recipe
from training import _checkpoint as tiny

COMMANDS = Path(__file__).parents[1] / "evaluation" / "_forked_commands.py"
#: All is imported before the first command is a fork.
START = f"import runpy, equipoise.balancing.run; runpy.run_path({str(COMMANDS)!r}, run_name='__main__')"


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


@pytest.fixture(scope="session")
def command() -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a command in a process of its own, as `_forked_commands.py` says; returns its status and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    server = subprocess.Popen(
        [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def run(*arguments: Any, **options: Any) -> dict[str, Any]:
        print(json.dumps({"arguments": list(map(str, arguments)), **options}), file=server.stdin, flush=True)
        answer: dict[str, Any] = json.loads(server.stdout.readline())
        return answer

    yield run
    server.stdin.close()
    server.wait(timeout=60)
    server.stdout.close()
