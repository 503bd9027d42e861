"""A sample of what `harness.py` does: a few disturbances of each kind, and that it sees what is not as it must be."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.locks import lock
from faults import _commands, _disk, _kills, harness
from faults._commands import Command

Start = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made(command: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    folder = tmp_path_factory.mktemp("faults")
    return {one.name: one for one in _commands.commands(folder, command, ("train", "evaluate"), times=1)}


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [("kill", "train", 2), ("kill", "evaluate", 1), ("terminate", "train", 2), ("closed", "train", 1),
     ("corrupt", "train", 1), ("full", "evaluate", 2)],
)  # fmt: skip
def test_disturbed_and_the_same(
    command: Start, made: dict[str, Command], tmp_path: Path, kind: str, name: str, count: int
) -> None:
    if kind in ("closed", "full") and (reason := _disk.may_mount()):
        pytest.skip(reason)
    disturb, _ = harness.KINDS[kind]
    tally = disturb(made[name], command, tmp_path, count, random.Random(f"sample {kind} {name}"))
    assert tally.faults == []
    assert tally.same == tally.runs > 0
    assert tally.signals == count
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_is_whole(command: Start, made: dict[str, Command], tmp_path: Path) -> None:
    """Without a file system of its own: no file may grow beyond some bytes, in the middle of a checkpoint."""
    run = tmp_path / "run"
    sizes = [len(content) for name, content in (made["train"].undisturbed or {}).items() if name.startswith("model/")]
    ended = command(*made["train"].line(run), full=sorted(sizes)[-1] - 1)
    assert ended["status"] == 2, ended["printed"]
    [line] = [line for line in ended["printed"].splitlines() if line.startswith("equipoise: ")]
    assert "started again (train with --resume)" in line
    assert "Traceback" not in ended["printed"]
    assert command(*made["train"].line(run, resume=True))["status"] == 0
    assert _commands.differences(made["train"], run) == []


def test_what_differs_is_seen(made: dict[str, Command], tmp_path: Path) -> None:
    evaluate = made["evaluate"]
    run = evaluate.fresh(tmp_path / "run")
    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes()[:-1])
    (run / ".scores.json-left").touch()
    differing = _commands.differences(evaluate, run)
    assert {"metrics.jsonl", ".scores.json-left", "scores.json"} <= set(differing)
    tally = _kills.Tally("evaluate")
    _disk.conclude(tally, evaluate, run, {"status": 0, "printed": ""})
    assert tally.same == 0
    assert tally.faults[0].startswith("not as undisturbed: .scores.json-left, ")


def test_a_table_shares_out_what_was_asked_for() -> None:
    assert harness.shares({"train": 80, "evaluate": 40, "balance": 40, "compare": 40}, 20) == {
        "train": 8, "evaluate": 4, "balance": 4, "compare": 4,
    }  # fmt: skip
    tally = _kills.Tally("train", signals=3, runs=1, same=1)
    tally.moments["stepping"] += 3
    assert harness.row("kill", tally, 2.4) == "| kill | train | 3 | 1 | 1 |  | 3 |  |  |  | 0 | 2 |"


def test_two_commands_on_one_run_are_refused(command: Start, made: dict[str, Command], tmp_path: Path) -> None:

    run = made["evaluate"].fresh(tmp_path / "run")
    (run / "done.json").unlink()
    with lock(run):
        for line in (made["train"].line(run, resume=True), made["evaluate"].line(run)):
            ended = command(*line)
            assert ended["status"] == 2
            assert f"equipoise: another equipoise command is at work in {run}: process " in ended["printed"]
