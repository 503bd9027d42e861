"""Runs whose numbers go bad, from the command line: one line that says so, and reports that show it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from equipoise.modules.step_guard import LIMIT
from equipoise.training.run_directory import RunDirectory
from training import _checkpoint as tiny

Command = Callable[..., dict[str, Any]]


@pytest.fixture
def parts(checkpoint: Path, dataset: Path) -> tuple[Path, Path]:
    return checkpoint, dataset


def recipe(folder: Path, checkpoint: Path, dataset: Path, **train: Any) -> Path:
    content = tiny.settings(checkpoint, dataset, {"schedule": "commit"}, dropout=0.0, **train)
    return tiny.write_recipe(folder / "recipe.yaml", content)


def test_weights_that_overflow(command: Command, parts: tuple[Path, Path], tmp_path: Path) -> None:
    """A learning rate that nobody means."""
    file = recipe(tmp_path, *parts, learning_rate=1e37, warmup=0.5, max_steps=6, save_steps=1)
    out = tmp_path / "run"
    ended = command("train", file, "--out", out)
    assert ended["status"] == 2
    [line] = [line for line in ended["printed"].splitlines() if line.startswith("equipoise: ")]
    assert line.startswith("equipoise: training ended at step ")
    assert "not finite; try a lower learning rate" in line
    assert f"whose weights are finite, is {out / 'checkpoints'}" in line
    assert "Traceback" not in ended["printed"]
    run = RunDirectory(out)
    assert not run.done
    assert not run.model.exists()
    for saved in run.checkpoints.rglob("*.safetensors"):
        assert all(torch.isfinite(value).all() for value in load_file(saved).values())
    shown = command("diagnose", out)
    assert shown["status"] == 0, shown["printed"]
    assert "Training ended at step 2: the weights of projector, llm are not finite; try" in shown["printed"]


def test_a_model_that_came_with_a_number_that_is_none(
    command: Command, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, dataset = parts
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for file in checkpoint.iterdir():
        (spoilt / file.name).write_bytes(file.read_bytes())
    weights = load_file(spoilt / "model.safetensors")
    name = next(name for name in weights if "vision" in name and name.endswith("weight") and weights[name].dim() > 1)
    weights[name].flatten()[0] = torch.nan
    save_file(weights, spoilt / "model.safetensors", metadata={"format": "pt"})
    file = recipe(tmp_path, spoilt, dataset, max_steps=2 * LIMIT)
    out = tmp_path / "run"
    ended = command("train", file, "--out", out)
    assert ended["status"] == 2
    lines = ended["printed"].splitlines()
    assert sum("is not made" in line for line in lines) == 1
    assert lines[-1].startswith(f"equipoise: training ended at step {LIMIT}: {LIMIT} steps in a row, from step 1, ")
    assert lines[-1].endswith("(there is no checkpoint)")
    logged = RunDirectory(out).metrics()
    assert logged.pop()["ended"].startswith(f"{LIMIT} steps in a row")
    assert len(logged) == LIMIT
    assert all(line["loss"] is None for line in logged)
    shown = command("diagnose", out)
    assert shown["status"] == 0, shown["printed"]
    assert f"{LIMIT} of {LIMIT} steps were not made" in shown["printed"]
    assert command("report", out)["status"] == 0
    assert "were not made" in (out / "report.html").read_text(encoding="utf-8")
    said = json.loads(command("diagnose", out, "--json")["printed"])
    assert any("were not made" in sentence for sentence in said["mishaps"])


@pytest.mark.parametrize(("rates", "words"), [
    (0.0, "Every learning rate was 0 at every step: nothing was learned."),
    ({"projector": 0.0, "llm": 0.003}, "The learning rate of projector was 0 at every step"),
])  # fmt: skip
def test_a_learning_rate_of_0(
    command: Command, parts: tuple[Path, Path], tmp_path: Path, rates: Any, words: str
) -> None:
    file = recipe(tmp_path, *parts, learning_rate=rates, max_steps=3)
    out = tmp_path / "run"
    ended = command("train", file, "--out", out)
    assert ended["status"] == 0, ended["printed"]
    logged = RunDirectory(out).metrics()
    assert not any("kappa" in line or "steps_skipped" in line for line in logged)
    assert all(line["lr_factor/llm"] == 1 for line in logged)
    shown = command("diagnose", out)
    assert shown["status"] == 0, shown["printed"]
    assert words in shown["printed"]
