"""What is made once for these tests, which only read it: the embedded stack, a tiny checkpoint, tiny data, commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import LlavaForConditionalGeneration

from equipoise.data.collate import Collator
from equipoise.models.embedded import smol_vlm
from equipoise.models.loading import load_processor
from equipoise.recipe import Model
from training import _checkpoint as tiny

COMMANDS = Path(__file__).with_name("_forked_commands.py")


@pytest.fixture(scope="session")
def model() -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(smol_vlm()).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def collator() -> Collator:
    return Collator(load_processor(Model(path="embedded:smol-vlm")))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight test samples, six for validation, about squares of two colours."""
    return tiny.make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def command() -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a command in a process of its own, as `_forked_commands.py` says; returns its status and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    server = subprocess.Popen(
        [sys.executable, str(COMMANDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
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
