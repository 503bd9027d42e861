"""What all tests share: no network, one thread, seeded generators, property tests that repeat, a tiny checkpoint and
data, forked commands, and a browser."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start: two workers with two threads each crawl

import hypothesis
import pytest
import torch

from _forked import forked_commands
from report._browser import Browser, start
from training import _checkpoint as tiny

torch.set_num_threads(1)
hypothesis.settings.register_profile("equipoise", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("equipoise")


def pytest_collection_finish() -> None:
    """What torch and its company are made of is there to stay. Looked through by each collection, it took half of the
    time of tests that make trainers, which collect often."""
    gc.collect()
    gc.freeze()


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
    with forked_commands() as run:
        yield run


@pytest.fixture(scope="session")
def group(command: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """Run `main` of a module of the tests in several processes (`processes/_forked_group.py`); what they printed."""

    def run(processes: int, module: str, *arguments: Any, **options: Any) -> str:
        done = command(processes=processes, script=[module, *map(str, arguments)], **options)
        printed = "\n".join(done["printed"])
        assert not any(done["statuses"]), printed[-4000:]
        return printed

    return run
