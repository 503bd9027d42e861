"""scripts/long_run.py: its sample of some hundred steps leaks nothing, its runs go on, and what is read out of them."""

from __future__ import annotations

import gc
import importlib
import io
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from equipoise.recipe import SCHEDULES
from equipoise.training import run as training
from equipoise.training.run_directory import RunDirectory
from equipoise.training.step_events import StepEvents

ROOT = Path(__file__).parents[2]
NAMES = ("figures", "long_run_results", "long_run")
STEPS = 200


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("long_run")
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def results(script: ModuleType) -> ModuleType:
    return sys.modules["long_run_results"]


@pytest.fixture(scope="module")
def stage(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long-run") / "stage"
    script.make_stage(folder)
    return folder


def test_every_schedule_has_a_run_and_all_recipes_are_valid(script: ModuleType, stage: Path) -> None:
    recipes = [plan.recipe(stage, 10) for plan in script.PLANS.values()]
    assert {recipe.balance.modules.schedule for recipe in recipes} == set(SCHEDULES)
    assert {recipe.balance.modules.estimator for recipe in recipes} == {"per-sample", "exact", "sampled"}
    assert {recipe.balance.modules.controller for recipe in recipes} == {"paper", "servo"}


# ---------------------------------------------------------------------- the sample


@pytest.mark.parametrize("name", ["commit", "sampled"])
def test_hundreds_of_steps_leave_nothing_behind(
    script: ModuleType, results: ModuleType, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Blocks of Python's allocator, which hold its objects, their numbers and their texts: as many late as early."""
    blocks: list[int] = []
    end_step = StepEvents.on_step_end

    def counted(self: StepEvents, args: Any, state: Any, control: Any, **others: Any) -> None:
        end_step(self, args, state, control, **others)
        if state.global_step in (50, STEPS):
            gc.collect()
            blocks.append(sys.getallocatedblocks())

    monkeypatch.setattr(StepEvents, "on_step_end", counted)
    monkeypatch.setattr(training, "HISTORY", 20)  # full well before the first count
    recipe = script.PLANS[name].recipe(stage, STEPS)
    run = training.train(recipe, tmp_path / name, Console(file=io.StringIO()))
    assert (blocks[1] - blocks[0]) / (STEPS - 50) < 5  # about 1 by chance; a step's log entry alone is 60
    flaws, columns = results.read_log(run.metrics_file, STEPS)
    assert flaws == []
    assert np.isfinite(columns["loss"]).all()
    assert np.isfinite(columns["lr_factor/llm"]).all()
    assert np.nanmax(columns["window_span"]) <= 20 * (5 if name == "sampled" else 1)
    state = json.loads((run.checkpoints / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"]] == list(range(STEPS - 19, STEPS + 1))


def test_a_run_that_was_broken_off_goes_on_and_one_that_is_done_stays(
    script: ModuleType, stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stage, out / "stage")
    run = RunDirectory(out / "runs" / "servo")
    training.train(script.PLANS["servo"].recipe(out / "stage", 12), run.path, Console(file=io.StringIO()))
    whole = run.metrics_file.read_bytes()
    run.done_file.unlink()
    shutil.rmtree(run.model)
    shutil.rmtree(run.checkpoints / "checkpoint-12")
    monkeypatch.setattr(script.watch, "__defaults__", (0.05,))
    assert run.newest_checkpoint() == run.checkpoints / "checkpoint-11"
    command = ["run", str(out), "--steps", "12", "--schedules", "servo"]
    script.main(command)
    assert "servo: 12 steps" in capsys.readouterr().out
    assert run.metrics_file.read_bytes() == whole
    held = [json.loads(line) for line in (out / "servo.memory.jsonl").read_text().splitlines()]
    assert all(line["rss"] > 2**20 for line in held)
    before = run.done_file.stat().st_mtime_ns
    script.main(command)
    assert capsys.readouterr().out == "servo: is there\n"
    assert run.done_file.stat().st_mtime_ns == before


def test_a_run_that_fails_is_named(script: ModuleType, stage: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--schedules: found fast; allowed: commit, "):
        script.main(["run", str(tmp_path), "--schedules", "commit,fast"])
    with pytest.raises(SystemExit, match="no runs there"):
        script.main(["summary", str(tmp_path)])


# ---------------------------------------------------------------------- what is read out of runs


def made(results: ModuleType, log_kappa: np.ndarray, factors: np.ndarray | None = None, **changes: Any) -> Any:
    """A run of those kappas; the encoder's factor is what is missing to 2."""
    steps = len(log_kappa)
    factors = np.linspace(0.9, 1.1, steps) if factors is None else factors
    columns = {
        "loss": np.ones(steps), "kappa": np.exp(log_kappa), "lr_factor/llm": factors, "lr_factor/projector": 2 - factors
    }  # fmt: skip
    memory = results.Memory(*(np.zeros(0) for _ in range(4)))
    content = {
        "name": "made", "steps": steps, "done": True, "columns": columns, "flaws": (), "seconds": np.full(steps, 0.01),
        "memory": memory, "bytes": {"metrics.jsonl": 1000 * steps},
    }  # fmt: skip
    return results.Run(**{**content, **changes})


NOISE = np.random.default_rng(0).normal(size=20_000)


@pytest.mark.parametrize(
    ("log_kappa", "factors", "verdict"),
    [
        (NOISE, None, "steady"),
        (NOISE + np.linspace(2, 0, 20_000).clip(1), None, "steady"),  # it moved in the first half alone
        (NOISE + np.linspace(0, 2, 20_000), None, "moves"),
        (NOISE + np.linspace(0, 0.5, 20_000), None, "steady"),  # surely, but by less than a factor of 1.5
        (NOISE, np.where(np.arange(20_000) % 5 == 0, 0.02, 1.0), "at the bound"),
        (NOISE, np.where(np.arange(20_000) % 50 == 0, 1.98, 1.0), "steady"),
        (np.full(20_000, np.nan), None, "no kappa"),
        (NOISE[:8000], None, "too short"),
    ],
)
def test_verdicts(results: ModuleType, log_kappa: np.ndarray, factors: np.ndarray | None, verdict: str) -> None:
    run = made(results, log_kappa, factors)
    assert results.verdict(run, results.windows(run)) == verdict


def test_a_loss_that_is_no_number(results: ModuleType, tmp_path: Path) -> None:
    flaws, _ = results.read_log(log(tmp_path, [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}]), 2)
    assert flaws == ["loss no number: 1"]
    run = made(results, NOISE, flaws=tuple(flaws))
    assert results.verdict(run, results.windows(run)) == "not finite"


def log(folder: Path, lines: list[dict[str, Any]], end: str = "\n") -> Path:
    file = folder / "metrics.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + end)
    return file


def test_flaws_of_a_log(results: ModuleType, tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 2.0}, {"step": 3, "loss": 1.0}, {"step": 3, "loss": 1.0}, {"loss": 1.0}, {"step": 9}]
    flaws, columns = results.read_log(log(tmp_path, lines, end='\n{"step": 4, "lo'), 4)
    assert flaws == ["lines that are no step's: 3", "no end of the last line: 1", "steps missing: 1", "steps twice: 1"]
    np.testing.assert_array_equal(columns["loss"], [2.0, np.nan, 1.0, np.nan])


def test_windows_and_trend_by_hand(results: ModuleType) -> None:
    log_kappa = np.repeat(np.arange(10.0), 1000)
    found = results.windows(made(results, log_kappa))
    assert [window.end for window in found] == [1000 * n for n in range(1, 11)]
    assert [window.median for window in found] == pytest.approx(list(range(10)))
    moved = results.trend(found)
    assert moved.change == pytest.approx(4)  # five windows, each 1 above the one before
    assert moved.p == pytest.approx(2 / math.factorial(5))
    assert results.longest([True, False, True, True]) == 2
    alternating = made(results, np.where(np.arange(2000) % 2 == 0, 1.0, -1.0))
    assert results.windows(alternating)[0].memory == pytest.approx(-1)


def memory(results: ModuleType, rss: np.ndarray, parts: np.ndarray) -> Any:
    steps = np.linspace(1, 20_000, len(rss))
    return results.Memory(steps, rss, np.full(len(rss), 12.0), parts)


def test_slope_of_memory(results: ModuleType) -> None:
    steps = np.linspace(1, 20_000, 400)
    noise = 1e5 * np.random.default_rng(1).normal(size=400)
    one = np.ones(400)
    leaking = results.memory_slope(memory(results, 5e8 + 4000 * steps + noise, one), 20_000)
    assert leaking.low < 4000 < leaking.high
    assert leaking.low > 3900
    flat = results.memory_slope(memory(results, 5e8 + noise, one), 20_000)
    assert flat.low < 0 < flat.high
    # What is taken in the first quarter, and where a second process begins, is no slope.
    parts = np.where(steps < 12_000, 1, 2)
    begun = np.where(parts == 1, 1e5 * steps.clip(0, 5000), 1e5 * (steps - 12_000).clip(0, 1500))
    shifted = results.memory_slope(memory(results, 1e8 + begun + noise, parts), 20_000)
    assert shifted.low < 0 < shifted.high
    assert results.memory_slope(memory(results, np.zeros(0), np.zeros(0)), 20_000) is None


def test_summary_and_figure(results: ModuleType) -> None:
    held = memory(results, np.full(100, 5e8), np.ones(100))
    factors = np.where(np.arange(20_000) < 30, 0.02, 1.0)
    runs = [
        made(results, NOISE, factors, name="commit", memory=held),
        made(results, np.full(20_000, np.nan), name="feature-cd", memory=held, done=False),
    ]
    rows = results.summary(runs).splitlines()
    machine = next(row for row in rows if row.startswith("| `commit` |")).split(" | ")
    assert machine[1:6] == ["20,000", "none", "477 to 477", "0 (0 to 0)", "12, at most 12"]
    assert machine[6:8] == ["10.0, 10.0", "1000"]
    kappa = [row for row in rows if row.startswith("| `commit` |")][1].split(" | ")
    assert kappa[6] == "0.15%, 3.0%, 30"
    assert kappa[-1] == "steady |"
    assert "20,000 of 20,000" in next(row for row in rows if row.startswith("| `feature-cd` |"))
    drawn = results.figure(runs)
    assert [note.text for note in drawn.layout.annotations] == [
        "kappa, commit", "loss", "resident memory", "a step, fastest tenth"
    ]  # fmt: skip
    medians = next(trace for trace in drawn.data if trace.mode == "lines")
    assert list(medians.y) == pytest.approx([math.exp(w.median) for w in results.windows(runs[0])])
