"""`equipoise bench` on a tiny checkpoint: its tables, its file, what stays in it, and mistakes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from equipoise import cli
from equipoise.bench import run
from equipoise.bench.contestants import REFERENCE, line_up
from equipoise.bench.fidelity import Agreement
from equipoise.recipe_reading import load_recipe
from training import _checkpoint as tiny

Command = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    checkpoint, data = tiny.make_checkpoint(folder / "checkpoint"), tiny.make_dataset(folder / "data")
    return tiny.write_recipe(folder / "squares.yaml", tiny.settings(checkpoint, data, {"every": 2}))


def seconds_in(value: Any, key: str = "") -> list[str]:
    """Keys that speak of time or bytes, anywhere."""
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in seconds_in(inner, name)]
    return [key] if "second" in key or "byte" in key else []


def test_steps_and_fidelity(command: Command, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("bench", "steps", "fidelity", "--model", recipe, "--steps", 3, "--seeds", 2, "--out", out)
    assert done["status"] == 0, done["printed"]
    found = json.loads((out / "bench.json").read_text())
    assert list(found) == ["squares"]
    costs = found["squares"]["steps"]["costs"]
    assert list(costs) == [contestant.name for contestant in line_up()]
    assert costs[REFERENCE.name]["ratio"] == 1
    assert all(len(cost["ratios"]) == 4 for cost in costs.values())  # whole cycles of measuring each second step
    assert costs["commit, exact"]["ratio"] > costs["commit-clr"]["plain"]
    assert {name: cost["share"] for name, cost in costs.items() if cost["share"]} == {
        "commit-clr": 0.5, "commit-clr, exact": 1, "commit": 0.5, "commit, exact": 1,
    }  # fmt: skip
    fidelity = found["squares"]["fidelity"]
    assert fidelity["pooled"]["default"]["measurements"] == 4
    assert [len(own["log_kappas"]) for own in fidelity["seeds"]["default"].values()] == [2, 2]
    assert fidelity["command"] == {"steps": 3}
    assert seconds_in(found) == []
    for shown in ("squares: steps", "commit, exact", "transformers Trainer", "RMSE of LR factors", "by at most"):
        assert shown in done["printed"]
    assert [path.name for path in out.iterdir()] == ["bench.json"]


def test_other_parts_stay(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "line_up", lambda: [REFERENCE])
    (tmp_path / "bench.json").write_text('{"squares": {"fidelity": {"kept": 1}, "memory": {"old": 1}}, "other": {}}')
    printed = io.StringIO()
    run.bench(["memory"], {"squares": load_recipe(recipe)}, tmp_path, Console(file=printed, width=200))
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["squares"]["fidelity"] == {"kept": 1}
    assert "other" in found
    assert found["squares"]["memory"]["peaks"] == {REFERENCE.name: {"steps": 1, "process": 1, "device": None}}
    assert "trl is not installed; its SFTTrainer is left out" in printed.getvalue()
    assert "beyond the loaded model" in printed.getvalue()


def test_a_broken_off_fidelity_keeps_its_whole_seeds(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(_: Any, __: int, seed: int, ___: Any) -> dict[str, Agreement]:
        if seed == 1:
            raise KeyboardInterrupt
        return {"default": Agreement(losses=[(0.5, 0.25)])}

    monkeypatch.setattr(run, "watch", watch)
    with pytest.raises(KeyboardInterrupt):
        run.bench(["fidelity"], {"squares": load_recipe(recipe)}, tmp_path, Console(file=io.StringIO()))
    found = json.loads((tmp_path / "bench.json").read_text())["squares"]["fidelity"]
    assert list(found["seeds"]["default"]) == ["0"]
    assert found["pooled"]["default"]["largest_loss_difference"] == 0.25


def test_mistakes(command: Command, recipe: Path, tmp_path: Path) -> None:
    done = command("bench", "steps", "gowth", "--model", recipe)
    assert done["status"] == 2
    assert (
        done["printed"].strip() == "equipoise: bench: found 'gowth'; allowed: steps, curves, memory, fidelity, growth"
    )
    (tmp_path / "bench.json").write_text("[1]")
    done = command("bench", "steps", "--model", recipe, "--out", tmp_path)
    assert done["status"] == 2
    assert done["printed"].strip() == (
        f"equipoise: {tmp_path}/bench.json was not written by equipoise bench; name another folder with --out"
    )
    done = command("bench", "--model", tmp_path / "none.yaml")
    assert done["printed"].startswith(f"equipoise: {tmp_path}/none.yaml: cannot be read")
    assert done["status"] == 2


def test_the_command_line_names_every_part() -> None:
    """It has a list of its own, to refuse a wrong name before torch is imported."""
    assert cli.BENCHED == run.PARTS == tuple(run.LENGTHS)
