"""experiments/commit*.py: every planned run is a valid recipe; what is read out of finished ones."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy import stats

from equipoise.comparing.measured import Measured
from equipoise.recipe_reading import load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def experiments(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("commit")


@pytest.fixture(scope="module")
def plan(experiments: ModuleType) -> ModuleType:
    return sys.modules["experiments.commit_plan"]


@pytest.fixture(scope="module")
def results(experiments: ModuleType) -> ModuleType:
    return sys.modules["experiments.commit_results"]


def _write(folder: Path, runs: list[Measured], logs: dict[str, list[float]] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps({"runs": [asdict(run) for run in runs]}))
    for name, losses in (logs or {}).items():
        (folder / "nodes" / name).mkdir(parents=True)
        lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses, 1)]
        (folder / "nodes" / name / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _run(method: str, seed: int, loss: float = 1.0, **values: Any) -> Measured:
    return Measured(method, seed, (f"{method}@{seed}",), values.pop("scores", {}), loss, **values)


def test_every_run_is_a_valid_recipe_and_no_two_methods_are_the_same(plan: ModuleType) -> None:
    for experiment in plan.EXPERIMENTS.values():
        for cell in map(plan.CELLS.get, experiment.cells):
            recipes = [load_recipe(cell.file, settings) for settings in experiment.methods.values()]
            assert len({recipe.to_yaml() for recipe in recipes}) == len(recipes)
            assert [task.name for task in recipes[0].tasks] == list(cell.tasks)
            assert {task.metric for task in recipes[0].tasks} == {cell.metric}


def test_all_stacks_see_as_many_samples(plan: ModuleType) -> None:
    trains = [load_recipe(cell.file).train for cell in plan.MAIN.values()]
    assert len({(train.max_steps, train.batch_size, train.gradient_accumulation) for train in trains}) == 1
    assert {plan.MAIN[name].stack: name for name in reversed(plan.MAIN)} == plan.TUNED_ON


def test_papers_form_is_the_papers(plan: ModuleType) -> None:
    modules = load_recipe(plan.CELLS["vqa"].file, plan.METHODS["commit, paper's form"]).balance.modules
    assert (modules.estimator, modules.average, modules.min_factor, modules.regulariser_cap) == (
        "exact",
        "mean",
        0,
        None,
    )
    assert (modules.schedule, modules.controller, modules.regulariser_weight) == ("commit", "paper", 1)


def test_the_best_rate_has_the_smallest_loss_and_is_needed_at_each(
    results: ModuleType, plan: ModuleType, tmp_path: Path
) -> None:
    losses = dict(zip(plan.RATES, (2.0, 0.5, 0.25, math.nan), strict=True))
    runs = [_run(f"commit at {rate:g}", 100, loss) for rate, loss in losses.items() if math.isfinite(loss)]
    _write(tmp_path, runs)
    assert results.best_rates(tmp_path) == {}
    diverged = _run(f"commit at {plan.RATES[-1]:g}", 100)
    _write(tmp_path, [*runs, Measured(**{**asdict(diverged), "validation_loss": None})])
    assert results.best_rates(tmp_path) == dict.fromkeys(("commit", "commit, paper's form"), plan.RATES[2])


def test_tuned_rates_go_into_the_methods(experiments: ModuleType, plan: ModuleType, tmp_path: Path) -> None:
    table, curves, vqa = plan.EXPERIMENTS["table1"], plan.EXPERIMENTS["curves"], plan.CELLS["vqa"]
    with pytest.raises(SystemExit, match=r"constant, .*no tuned learning rate on vision"):
        experiments.rated(tmp_path, table, vqa)
    best = {name: plan.RATES[number % len(plan.RATES)] for number, name in enumerate(plan.TUNED)}
    runs = [
        _run(f"{name} at {rate:g}", 100, 0.1 if rate == best[name] else 1.0) for name in best for rate in plan.RATES
    ]
    _write(tmp_path / "tune" / "vqa", runs)
    given = experiments.rated(tmp_path, table, vqa)
    rates = {name: load_recipe(vqa.file, settings).train.learning_rate for name, settings in given.items()}
    assert rates == best | {name: best[other] for name, other in plan.TUNED_AS.items()}
    given = experiments.rated(tmp_path, curves, vqa)
    assert {load_recipe(vqa.file, settings).train.learning_rate for settings in given.values()} == {best["constant"]}


def test_finished_runs_of_the_same_method_are_brought_over(
    experiments: ModuleType, plan: ModuleType, tmp_path: Path
) -> None:
    best = dict.fromkeys(plan.TUNED, plan.RATES[2]) | {"commit": plan.RATES[1]}
    runs = [
        _run(f"{name} at {rate:g}", 100, 0.1 if rate == best[name] else 1.0) for name in best for rate in plan.RATES
    ]
    _write(tmp_path / "tune" / "vqa", runs)
    nodes = tmp_path / "table1" / "vqa" / "nodes"
    for name, done in {"constant@0-aa": True, "constant@1-bb": False, "commit@0-cc": True, "servo@0-dd": True}.items():
        (nodes / name / ".locks").mkdir(parents=True)
        (nodes / name / ".locks" / "command").touch()
        (nodes / name / ("scores-test.json" if done else "metrics.jsonl")).write_text("{}")
    vqa, one_rate = plan.CELLS["vqa"], plan.EXPERIMENTS["one-rate"]
    for _ in range(2):
        experiments.bring_over(tmp_path, "one-rate", vqa, experiments.rated(tmp_path, one_rate, vqa))
    brought = tmp_path / "one-rate" / "vqa"
    found = [str(path.relative_to(brought)) for path in sorted(brought.rglob("*"))]
    # Not what is not finished, nor what has another rate, nor what no method of it is.
    assert found == ["nodes", "nodes/constant@0-aa", "nodes/constant@0-aa/scores-test.json"]


def test_steps_to_a_loss(results: ModuleType) -> None:
    losses = [float(40 - step) for step in range(40)]
    assert results.steps_to(fmean_of(losses[12:20]), losses) == 20 / 40
    assert results.steps_to(-1.0, losses) == 1.0


def fmean_of(values: list[float]) -> float:
    return sum(values) / len(values)


def test_a_table_pairs_seeds_and_corrects_over_all_cells(experiments: ModuleType) -> None:
    constant = {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.5}
    better = {0: 0.71, 1: 0.79, 2: 0.6, 3: 0.7, 4: 0.9}
    same = {0: 0.55, 1: 0.55, 2: 0.45, 3: 0.5}
    table = importlib.import_module("experiments.tables").Table(
        "scores", {"a": {"constant": constant, "x": better}, "b": {"constant": constant, "x": same}}
    )
    pairs = [[other[seed] for seed in constant] for other in (better, same)]
    ps = [stats.ttest_rel(pair, list(constant.values())).pvalue for pair in pairs]
    assert table.differences["x", "a"][0].mean == pytest.approx(0.2)
    assert table.differences["x", "a"][1] == pytest.approx(2 * ps[0])
    assert table.differences["x", "b"][1] == pytest.approx(max(2 * ps[0], ps[1]))
    text = table.markdown()
    assert "| `x` | **+0.200 [" in text
    assert "| +0.013 [" in text
    assert "| seeds | 4 to 5 | 4 |" in text


def test_what_is_read_of_finished_runs(results: ModuleType, plan: ModuleType, tmp_path: Path) -> None:
    falls, falls_faster = [float(40 - step) for step in range(40)], [float(40 - 2 * step) for step in range(40)]
    runs = [
        _run("constant", 0, 0.5, scores={"vqa": {"exact_match": 0.7}}, kappa=2.0, std_log_kappa=1.0),
        _run("commit", 0, 0.4, scores={"vqa": {"exact_match": 0.75}}, kappa=1.0, std_log_kappa=0.5),
    ]
    _write(tmp_path / "table1" / "vqa", runs, {"constant@0": falls, "commit@0": falls_faster})
    tables = {table.title: table for table in results.tables(results.Results(tmp_path), "table1")}
    assert len(tables) == 5
    by_title = [table.values["vqa"]["commit"][0] for table in tables.values()]
    assert by_title == [0.75, 0.4, 1.0, 0.5, pytest.approx((8 + 14) / 40 + 0.0, abs=0.06)]
    text = results.summary(results.Results(tmp_path))
    assert "### table1" in text
    assert "### curves" not in text


def test_a_claim_is_confirmed_refuted_or_open(experiments: ModuleType, results: ModuleType, tmp_path: Path) -> None:
    claims = sys.modules["experiments.commit_claims"]
    claim = next(one for one in claims.CLAIMS if one.text == "the regulariser helps")
    worse = {0: 0.2, 1: 0.21, 2: 0.19, 3: 0.2}
    cells = {"vqa": (worse, True), "language": ({0: 0.1, 1: -0.1, 2: 0.05, 3: -0.04}, False)}
    for cell, (changes, _) in cells.items():
        runs = [_run("commit-clr", seed, 1.0) for seed in changes]
        _write(tmp_path / "table1" / cell, runs + [_run("commit", seed, 1.0 + by) for seed, by in changes.items()])
    tests = claim.tests(results.Results(tmp_path))
    ps = [stats.ttest_1samp(list(changes.values()), 0).pvalue for changes, _ in cells.values()]
    assert [p for _, p in tests] == pytest.approx([2 * ps[0], ps[1]])
    assert claims.verdict(claim, tests) == (0, 1, "refuted")
    turned = claims.Claim(claim.text, "", "table1", claim.pairs, claim.quantity, higher=True)
    assert claims.verdict(turned, tests) == (1, 0, "confirmed")
    assert claims.verdict(claim, tests[1:]) == (0, 0, "open")
    assert "| the regulariser helps | validation loss | own | +0.00" in claims.claims_table(results.Results(tmp_path))


def test_whether_a_kappa_nearer_to_1_goes_with_a_lower_loss(
    experiments: ModuleType, results: ModuleType, tmp_path: Path
) -> None:
    claims = sys.modules["experiments.commit_claims"]
    kappas = {"constant": 8.0, "commit-clr": 0.5, "commit": 1.0, "servo": 3.0, "feature-cd": None}  # this measures none
    losses = ({"constant": 4.0, "commit-clr": 2.0, "commit": 1.0, "servo": 3.0, "feature-cd": 9.0},
              {"constant": 4.0, "commit-clr": 1.0, "commit": 2.0, "servo": 3.0, "feature-cd": 0.0})  # fmt: skip
    runs = [_run(m, seed, of[m], kappa=kappa) for seed, of in enumerate(losses) for m, kappa in kappas.items()]
    _write(tmp_path / "table1" / "vqa", [*runs, _run("constant", 2, 1.0, kappa=2.0), _run("commit", 2, 2.0, kappa=1.0)])
    [claim] = [one for one in claims.of_methods("table1") if one.text.endswith("goes with a lower loss")]
    [(found, p)] = claim.tests(results.Results(tmp_path))
    assert found.mean == pytest.approx((1.0 + 0.8) / 2)  # the third seed has two methods
    assert p == pytest.approx(stats.ttest_1samp([1.0, 0.8], 0).pvalue)
    assert claims.verdict(claim, [(found, p)]) == (0, 0, "open")


def test_claims_read_the_log_after_its_first_quarter_and_lambda_at_every_step(
    experiments: ModuleType, results: ModuleType, tmp_path: Path
) -> None:
    claims = sys.modules["experiments.commit_claims"]
    _write(tmp_path / "table1" / "vqa", [_run("commit", 0)])
    lines = [{"step": s, "loss": 1.0, "drift/projector": 9.0 if s < 3 else 2.0 ** (s % 2)} for s in range(1, 9)]
    lines[4]["theory/lambda"], lines[5]["theory/lambda"] = 1.5, 0.5
    folder = tmp_path / "table1" / "vqa" / "nodes" / "commit@0"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = claims.of_log("drift/{encoder}")(results.Results(tmp_path), "table1", "vqa")
    assert found == {"commit": {0: pytest.approx(math.sqrt(2))}}
    assert claims.growing(results.Results(tmp_path))[3:] == ["0.500 to 0.500", "1", "0", "1", "refuted"]
