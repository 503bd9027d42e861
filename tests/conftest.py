"""What all tests share: no network, one thread, seeded generators, property tests that repeat, a tiny checkpoint and
data, forked commands, and a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start: two workers with two threads each crawl

import hypothesis
import pytest
import torch

from report._browser import Browser, start
from training import _checkpoint as tiny

COMMANDS = Path(__file__).parent / "evaluation" / "_forked_commands.py"
#: All is imported before the first command is a fork.
START = f"import runpy, equipoise.balancing.run; runpy.run_path({str(COMMANDS)!r}, run_name='__main__')"

torch.set_num_threads(1)
hypothesis.settings.register_profile("equipoise", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("equipoise")


@pytest.fixture(autouse=True, scope="session")
def _index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The datasets that tests make are indexed where pytest's other files are, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_INDEX", str(tmp_path_factory.mktemp("index")))
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA with random weights."""
    return tiny.make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about squares of two colours: to train on, six for validation, eight to test."""
    return tiny.make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, headless: one for all tests that open a page."""
    yield from start()


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
