"""scripts/dynamics.py: the simulation's figures, runs that go on where they stopped, and what is read out of them."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from equipoise.modules.schedules.servo import largest_stable_gain
from equipoise.recipe import Recipe

ROOT = Path(__file__).parents[2]
NAMES = ("figures", "dynamics_results", "dynamics")


@pytest.fixture(scope="module")
def dynamics() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("dynamics")
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def results(dynamics: ModuleType) -> ModuleType:
    return sys.modules["dynamics_results"]


# ---------------------------------------------------------------------- simulation


@pytest.mark.parametrize("r", [0.01, 0.1, 0.5, 5.0, 15.0, 100.0])
def test_pooled_settles_with_a_window_of_five(dynamics: ModuleType, r: float) -> None:
    assert isinstance(dynamics.outcome("pooled", r, 5), int)
    assert dynamics.simulated("pooled", r, 5)[-1] == pytest.approx(math.log(r) / 3, abs=1e-6)


@pytest.mark.parametrize(("r", "window"), [(5, 3), (15, 5), (0.1, 10), (100, 10), (0.01, 50)])
def test_mean_runs_away(dynamics: ModuleType, r: float, window: int) -> None:
    assert dynamics.outcome("mean", r, window) == "runs away"


@pytest.mark.parametrize(("r", "window"), [(5, 5), (15, 10), (0.1, 20), (100, 20)])
def test_mean_settles_with_a_longer_window(dynamics: ModuleType, r: float, window: int) -> None:
    assert isinstance(dynamics.outcome("mean", r, window), int)
    assert dynamics.simulated("mean", r, window)[-1] == pytest.approx(math.log(r) / 3, abs=1e-3)


def test_servo_settles_at_one_below_its_bound(dynamics: ModuleType) -> None:
    assert largest_stable_gain(20) == pytest.approx(0.123, abs=5e-4)
    assert dynamics.simulated("servo", 100, 20, 1000)[-1] == pytest.approx(0, abs=1e-6)
    slow = dynamics.outcome("servo", 100, 20)
    seen = dynamics.simulated("servo", 100, 20)
    assert abs(seen[slow - 1]) > math.log(1.5) > max(map(abs, seen[slow:]))
    assert slow == pytest.approx(4 * 20, rel=0.05)
    assert math.exp(min(seen)) == pytest.approx(1 / 20, rel=0.05)  # what it overshoots by


def test_two_measurements_of_the_paper_swing_for_ever(dynamics: ModuleType) -> None:
    """Around the fixed point z^2 + z + 1 = 0: a third root of one, which neither grows nor dies."""
    assert dynamics.outcome("pooled", 5, 2) == "swings"


def test_the_page_has_the_table_that_the_script_prints(dynamics: ModuleType) -> None:
    page = (ROOT / "docs" / "dynamics.md").read_text(encoding="utf-8")
    assert dynamics.simulate() in page


# ---------------------------------------------------------------------- runs


def test_rates_have_the_recipes_as_their_geometric_mean(dynamics: ModuleType) -> None:
    assert dynamics.Plan("1:1", "constant").rates(2e-4) == pytest.approx({"projector": 2e-4, "llm": 2e-4})
    rates = dynamics.Plan("10:1", "paper", 5).rates(2e-4)
    assert rates["projector"] / rates["llm"] == pytest.approx(10)
    assert rates["projector"] * rates["llm"] == pytest.approx(4e-8)


def test_every_window_ratio_and_controller_has_a_run(dynamics: ModuleType) -> None:
    names = [plan.name for plan in dynamics.plans()]
    assert len(names) == len(set(names)) == 3 + 6 * 3 * 2
    assert {"constant-1to10", "paper-10to1-w1", "servo-1to1-w50"} < set(names)


def test_runs_are_made_once_and_read(
    dynamics: ModuleType,
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, recipe = tmp_path / "out", make_recipe(dropout=0.1)
    only = ["constant-10to1", "paper-10to1-w3", "servo-10to1-w5"]
    command = ["run", str(out), "--steps", "2", "--batch-size", "2", "--estimator", "exact", "--only"]
    dynamics.main([*command, *only], recipe)
    files = {file.stem: file.read_bytes() for file in out.iterdir()}
    assert set(files) == set(only)
    found = {name: json.loads(content) for name, content in files.items()}
    for run in found.values():
        assert [record["step"] for record in run["steps"]] == [1, 2]
        assert all(record["kappa"] > 0 and record["loss"] > 0 for record in run["steps"])
        assert run["settings"]["learning_rate"] == recipe.train.learning_rate
        assert run["settings"]["batch_size"] == 2
    constant, paper = found["constant-10to1"]["steps"], found["paper-10to1-w3"]["steps"]
    assert paper[0] == constant[0]  # the same samples, weights and dropout; nothing was measured before
    assert constant[1]["factors"] == {"projector": 1.0, "llm": 1.0}
    kappa = paper[0]["kappa"]
    assert paper[1]["factors"]["llm"] == pytest.approx(max(0.02, min(1.98, 2 / (kappa + 1))))
    assert found["servo-10to1-w5"]["steps"][1]["factors"] != paper[1]["factors"]

    # One that is lost is made again alone, and comes out the same; the others are left as they are.
    (out / "servo-10to1-w5.json").unlink()
    before = (out / "paper-10to1-w3.json").stat().st_mtime_ns
    dynamics.main([*command, "constant-10to1", "*-10to1-w3", "servo-10to1-w5"], recipe)
    assert (out / "servo-10to1-w5.json").read_bytes() == files["servo-10to1-w5"]
    assert (out / "paper-10to1-w3.json").stat().st_mtime_ns == before
    (out / "servo-10to1-w3.json").unlink()  # which the pattern named too
    capsys.readouterr()

    with pytest.raises(SystemExit, match="Name another folder"):
        dynamics.main(["run", str(out), "--steps", "3", "--estimator", "exact"], recipe)
    with pytest.raises(SystemExit, match="--only: found nothing-like-it"):
        dynamics.main([*command, "nothing-like-it"], recipe)

    dynamics.main(["table", str(out)])
    printed = capsys.readouterr().out
    assert "2 steps of 2 samples" in printed
    assert "| 10:1 | 3 |" in printed
    taken = []
    monkeypatch.setattr(dynamics, "photograph", lambda figure, target, *_: taken.append((figure, target)))
    dynamics.main(["figure", str(out), str(tmp_path)])
    assert [target.name for _, target in taken] == ["dynamics.png", "dynamics-factors.png"]
    last_third = [trace for trace in taken[0][0].data if trace.mode == "markers"]
    assert {trace.name.partition(",")[0]: tuple(trace.y) for trace in last_third} == {
        "paper": (pytest.approx(paper[1]["kappa"]),),
        "servo": (pytest.approx(found["servo-10to1-w5"]["steps"][1]["kappa"]),),
    }
    lines = {trace.name for trace in taken[1][0].data}
    assert lines == {"N = 3", "N = 5", "predicted"}


def test_a_run_that_diverges_is_a_result(
    dynamics: ModuleType, make_recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(learning_rate=1e30)
    dynamics.main(["run", str(tmp_path / "out"), "--steps", "3", "--only", "paper-1to1-w1"], recipe)
    assert "paper-1to1-w1 (1 of 1): diverged" in capsys.readouterr().out
    run = json.loads((tmp_path / "out" / "paper-1to1-w1.json").read_text())
    assert run["steps"][-1]["loss"] is None
    dynamics.main(["table", str(tmp_path / "out")])
    assert "diverged |" in capsys.readouterr().out


# ---------------------------------------------------------------------- reading


def made(controller: str, factors: list[float], kappas: list[float | None], **changes: Any) -> dict[str, Any]:
    """A run of those LLM's factors (the projector's is what is missing to 2)."""
    settings = {
        "steps": len(factors), "batch_size": 4, "learning_rate": 1e-4, "estimator": "exact", "every": 5,
        "average": "pooled", "min_factor": 0.02, "seed": 0,
    }  # fmt: skip
    steps = [
        {"step": n, "loss": 1.0, "kappa": kappa, "factors": {"projector": 2 - f, "llm": f}}
        for n, (f, kappa) in enumerate(zip(factors, kappas, strict=True), 1)
    ]
    window = None if controller == "constant" else 5
    return {
        "name": "made", "ratio": "1:1", "controller": controller, "window": window,
        "settings": {**settings, **changes}, "steps": steps,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [
        ([1.0] * 12, "settles"),
        ([1.0] * 8 + [0.6, 1.4, 0.6, 1.4], "swings"),
        ([1.0] * 8 + [0.02, 1.98, 0.02, 1.98], "at the bound"),
        ([1.0] * 8 + [0.7] * 4, "moves"),
        ([0.3] * 4 + [0.7] * 8, "settles"),
    ],
)
def test_verdicts(results: ModuleType, factors: list[float], verdict: str) -> None:
    assert results.settled(made("paper", factors, [1.0] * 12)).verdict == verdict


def test_a_loss_that_is_no_number_anywhere(results: ModuleType) -> None:
    run = made("servo", [1.0] * 6, [1.0] * 6)
    run["steps"][0]["loss"] = None
    assert results.settled(run).verdict == "diverged"
    assert results.settled(run).loss == 1.0


def test_figures_of_the_last_third_by_hand(results: ModuleType) -> None:
    run = made("paper", [1.0, 1.0, 1.0, 1.0, 0.5, 0.5], [9.0, 9.0, 9.0, 9.0, 2.0, None])
    now = results.settled(run)
    assert now.kappa == results.Spread(2.0, 2.0, 2.0)
    assert now.factors.median == pytest.approx(0.5 / 1.5)
    assert now.equal_kappa == pytest.approx(2 * 9)  # at equal factors the LLM's drift is 9 times as large
    # What `lookback` sees at a step is the step before, made with that step's factors.
    run = made("paper", [1.0, 1.0, 1.0, 1.0, 0.5, 0.5], [None, 9.0, 9.0, 9.0, 2.0, None], estimator="lookback")
    assert results.settled(run).equal_kappa == pytest.approx(2)
    assert results.settled(made("paper", [1.0] * 3, [1.0, 1.0, None])).kappa is None


def test_the_prediction_is_the_cube_root_of_what_equal_factors_give(results: ModuleType) -> None:
    runs = [made("constant", [1.0] * 3, [1.0, 1.0, 8.0]), made("paper", [1.0] * 3, [5.0, 5.0, 3.0])]
    rows = [line for line in results.tables(runs).splitlines() if line.startswith("| 1:1 |")]
    assert rows[0] == "| 1:1 | 8 (8 to 8) | 2 | 1 |"
    assert rows[1] == "| 1:1 | 5 | 3 (3 to 3) | 2 | 3 | 1 (1 to 1) | 1 | settles |"
    level = [trace.y for trace in results.kappa_figure(runs).data if trace.name == "cube root of r"]
    assert level == [pytest.approx((2, 2))]


def test_another_file_is_named(results: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"bench\.json: no run"):
        results.load(tmp_path)
