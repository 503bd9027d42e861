"""Two processes share an evaluation: the bytes of one process, also when one ends what two began."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from _commands import put_back
from equipoise import cli
from equipoise.training.run_directory import RunDirectory
from evaluation._runs import files, finished_run, rows

COMMANDS = Path(__file__).with_name("_forked_commands.py")
Command = Callable[..., dict[str, Any]]


def torchrun(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module or a script twice at once, on CPU."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    return subprocess.run(
        [*launcher, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.fixture
def make_run(checkpoint: Path, dataset: Path, tmp_path: Path) -> Callable[[str], RunDirectory]:
    def make(name: str) -> RunDirectory:
        return finished_run(
            tmp_path / name, checkpoint,
            {"name": "colours", "reader": "jsonl", "path": dataset, "metric": "exact_match", "max_new_tokens": 5},
        )  # fmt: skip

    return make


def results(run: RunDirectory) -> dict[str, bytes]:
    names = ("scores.json", "predictions/colours.jsonl")
    assert {name for name in files(run.path) if not name.startswith("model/")} == {*names, "recipe.yaml", "done.json"}
    return {name: (run.path / name).read_bytes() for name in names}


def test_two_processes_write_what_one_does(make_run, command: Command, tmp_path: Path):
    one, two = make_run("one"), make_run("two")
    assert command("evaluate", one.path, "--batch-size", "3")["status"] == 0
    cold = str(tmp_path / "index")  # both index the data at once
    done = torchrun("-m", "equipoise", "evaluate", two.path, "--batch-size", "3", EQUIPOISE_INDEX=cold)
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(two) == results(one)
    assert 0 < json.loads(results(two)["scores.json"])["validation_loss"] < 10
    assert done.stdout.count("validation loss") == 1  # one process prints


@pytest.mark.slow
def test_one_process_ends_what_two_began(make_run, command: Command, tmp_path: Path):
    one, begun = make_run("one"), make_run("begun")
    assert command("evaluate", one.path, "--batch-size", "1")["status"] == 0
    kill = ["open", "unfinished/colours.1.jsonl", 3]  # the second process's third batch
    before = {"arguments": ["evaluate", str(begun.path), "--batch-size", "1"], "kill": kill}
    assert torchrun(COMMANDS, json.dumps(before)).returncode != 0
    kept = [len(rows(file)) - 1 for file in sorted((begun.predictions / ".unfinished").glob("colours.*.jsonl"))]
    assert kept[-1] == 2
    assert sum(kept) < 8

    log = tmp_path / "log.jsonl"
    assert command("evaluate", begun.path, "--batch-size", "1", log=str(log))["status"] == 0
    assert rows(log) == [["answers", 1]] * (8 - sum(kept) + 8)  # the shuffled ones were not begun
    assert results(begun) == results(one)


def test_a_command_leaves_its_group(monkeypatch, capsys):
    """A gloo process that ends inside its group may abort."""
    put_back(monkeypatch)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(sys, "argv", ["equipoise", "evaluate", "--help"])
    with warnings.catch_warnings(), pytest.raises(SystemExit):
        cli.main()
    assert not torch.distributed.is_initialized()
    assert "Generate and score" in capsys.readouterr().out
