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


def _write(file: Path, runs: list[Measured], logs: dict[str, dict[str, list[float | None]]] | None = None) -> None:
    """A file of records; logs are by a run's folder."""
    lines = [asdict(run) | {"log": (logs or {}).get(run.nodes[0], {})} for run in runs]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _tuned(records: Path, rates: dict[str, float], all_rates: tuple[float, ...]) -> None:
    runs = [
        _run(f"{name} at {rate:g}", 100, 0.1 if rate == best else 1.0)
        for name, best in rates.items()
        for rate in all_rates
    ]
    _write(records / "tune" / "vqa.jsonl", runs)


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
    modules = load_recipe(plan.CELLS["vqa"].file, plan.FORMS["commit, paper's form"]).balance.modules
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
    runs = {f"commit at {r:g}": {100: _run(f"commit at {r:g}", 100, loss)} for r, loss in losses.items() if loss > 0}
    assert results.best_rates(runs) == {}
    diverged = f"commit at {plan.RATES[-1]:g}"
    runs[diverged] = {100: Measured(**{**asdict(_run(diverged, 100)), "validation_loss": None})}
    assert results.best_rates(runs) == dict.fromkeys(("commit", "commit, paper's form"), plan.RATES[2])


def test_tuned_rates_go_into_the_methods(experiments: ModuleType, plan: ModuleType, tmp_path: Path) -> None:
    vqa = plan.CELLS["vqa"]
    with pytest.raises(SystemExit, match=r"constant, .*no tuned learning rate on vision"):
        experiments.rated(tmp_path, plan.EXPERIMENTS["table1"], vqa)
    best = {name: plan.RATES[number % len(plan.RATES)] for number, name in enumerate(plan.METHODS)}
    _tuned(tmp_path, best, plan.RATES)
    own = {f"constant at {rate:g}": rate for rate in plan.RATES}
    for name in ("table1", "paper-form", "curves", "table2"):
        given = experiments.rated(tmp_path, plan.EXPERIMENTS[name], vqa)
        rates = {method: load_recipe(vqa.file, settings).train.learning_rate for method, settings in given.items()}
        tuned = {m: best["constant" if name == "curves" else plan.TUNED_AS.get(m, m)] for m in given if m not in own}
        assert rates == tuned | (own if name == "table2" else {})


def test_finished_runs_of_the_same_method_are_brought_over(
    experiments: ModuleType, plan: ModuleType, tmp_path: Path
) -> None:
    _tuned(tmp_path, dict.fromkeys(plan.METHODS, plan.RATES[2]) | {"commit": plan.RATES[1]}, plan.RATES)
    nodes = tmp_path / "table1" / "vqa" / "nodes"
    for name, done in {"constant@0-aa": True, "constant@1-bb": False, "commit@0-cc": True, "servo@0-dd": True}.items():
        (nodes / name / ".locks").mkdir(parents=True)
        (nodes / name / ".locks" / "command").touch()
        (nodes / name / ("scores-test.json" if done else "metrics.jsonl")).write_text("{}")
    vqa, one_rate = plan.CELLS["vqa"], plan.EXPERIMENTS["one-rate"]
    for _ in range(2):
        experiments.bring_over(tmp_path, tmp_path, "one-rate", vqa, experiments.rated(tmp_path, one_rate, vqa))
    brought = tmp_path / "one-rate" / "vqa"
    found = [str(path.relative_to(brought)) for path in sorted(brought.rglob("*"))]
    # Not what is not finished, nor what has another rate, nor what no method of it is.
    assert found == ["nodes", "nodes/constant@0-aa", "nodes/constant@0-aa/scores-test.json"]


def test_steps_to_a_loss(results: ModuleType) -> None:
    losses = [float(40 - step) for step in range(40)]
    assert results.steps_to(fmean_of(losses[12:20]), losses) == 20 / 40
    assert results.steps_to(-1.0, losses) is None


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
    _write(tmp_path / "table1" / "vqa.jsonl", runs, {"constant@0": {"loss": falls}, "commit@0": {"loss": falls_faster}})
    tables = {table.title: table for table in results.tables(results.Results(tmp_path), "table1")}
    assert len(tables) == 5
    by_title = [table.values["vqa"]["commit"][0] for table in tables.values()]
    assert by_title == [0.75, 0.4, 1.0, 0.5, pytest.approx((8 + 14) / 40 + 0.0, abs=0.06)]
    assert list(results.sections(results.Results(tmp_path))) == ["table1"]


def test_runs_that_a_table_cannot_show_are_named(results: ModuleType, tmp_path: Path) -> None:
    falls, stays = [float(40 - step) for step in range(40)], [40.0] * 40
    runs = [_run("constant", 0), _run("constant", 1), _run("commit", 0), Measured("commit", 1, ("commit@1",), {}, None)]
    logs = {"constant@0": {"loss": falls}, "constant@1": {"loss": falls}, "commit@0": {"loss": stays}}
    _write(tmp_path / "table1" / "vqa.jsonl", runs, logs)
    found = results.Results(tmp_path)
    assert results.speeds(found, "table1", "vqa")["commit"] == {0: 1.0}
    lines = results.sections(found)["table1"].splitlines()[-2:]
    assert lines == [
        "- vqa, no finite validation loss, in no mean: `commit` 1 of 2",
        "- vqa, never there, counted as 1: `commit` 1 of 2",
    ]


def test_modules_have_their_mean_factor_and_their_kappa_after_the_first_quarter(
    results: ModuleType, tmp_path: Path
) -> None:
    log = {
        "lr_factor/projector": [1.0, 2.0, 3.0, 4.0],
        "lr_factor/llm": [1.0, 0.5, 0.5, None],
        "kappa": [9.0, None, 2.0, 8.0],
        "kappa/qformer": [None, None, None, None],
    }
    _write(tmp_path / "backbones" / "both.jsonl", [_run("commit", 3)], {"commit@3": log})
    (table,) = results.modules_tables(results.Results(tmp_path), "backbones")
    assert table.startswith("**both: ")
    assert "| method | seed | lr_factor/projector | lr_factor/llm | kappa | kappa/qformer |" in table
    assert "| `commit` | 3 | 2.500 | 0.667 | 4.000 |  |" in table
    assert table in results.sections(results.Results(tmp_path))["backbones"]


def test_a_claim_is_confirmed_refuted_or_open(experiments: ModuleType, results: ModuleType, tmp_path: Path) -> None:
    claims = sys.modules["experiments.commit_claims"]
    claim = next(one for one in claims.CLAIMS if one.text == "the regulariser helps")
    worse = {0: 0.2, 1: 0.21, 2: 0.19, 3: 0.2}
    cells = {"vqa": (worse, True), "language": ({0: 0.1, 1: -0.1, 2: 0.05, 3: -0.04}, False)}
    for cell, (changes, _) in cells.items():
        runs = [_run("commit-clr", seed, 1.0) for seed in changes]
        _write(
            tmp_path / "table1" / f"{cell}.jsonl",
            runs + [_run("commit", seed, 1.0 + by) for seed, by in changes.items()],
        )
    tests = claim.tests(results.Results(tmp_path))
    ps = [stats.ttest_1samp(list(changes.values()), 0).pvalue for changes, _ in cells.values()]
    assert [p for _, p in tests] == pytest.approx([2 * ps[0], ps[1]])
    assert claims.verdict(claim, tests) == (0, 1, "refuted")
    turned = claims.Claim(claim.text, "", "table1", claim.pairs, claim.quantity, higher=True)
    assert claims.verdict(turned, tests) == (1, 0, "confirmed")
    assert claims.verdict(claim, tests[1:]) == (0, 0, "open")
    [row] = [row for row in claims.claims_rows(results.Results(tmp_path)) if "regulariser helps" in row]
    assert row.startswith("| the regulariser helps | validation loss | table1 | +0.00")
    assert row.endswith(" | 2 | 0 | 1 | refuted |")


def test_claims_read_the_log_after_its_first_quarter_and_lambda_at_every_step(
    experiments: ModuleType, results: ModuleType, tmp_path: Path
) -> None:
    claims = sys.modules["experiments.commit_claims"]
    log = {"drift/projector": [9.0, 9.0, *(2.0 ** (s % 2) for s in range(3, 9))]}
    log["theory/lambda"] = [None, None, None, None, 1.5, 0.5, None, None]
    _write(tmp_path / "table1" / "vqa.jsonl", [_run("commit", 0)], {"commit@0": log})
    found = claims.of_log("drift/{encoder}")(results.Results(tmp_path), "table1", "vqa")
    assert found == {"commit": {0: pytest.approx(math.sqrt(2))}}
    assert claims.growing(results.Results(tmp_path), "table1")[3:] == ["0.500 to 0.500", "1", "0", "1", "refuted"]
    assert claims.growing(results.Results(tmp_path), "backbones") == []


def test_a_section_that_is_not_recorded_stands_as_it_did(
    experiments: ModuleType, results: ModuleType, tmp_path: Path
) -> None:
    pages = sys.modules["experiments.commit_page"]
    scored = {"vqa": {"exact_match": 0.7}}
    _write(tmp_path / "old" / "table1" / "vqa.jsonl", [_run(m, 0, scores=scored) for m in ("constant", "commit")])
    before = pages.page(results.Results(tmp_path / "old"))
    assert pages.page(results.Results(tmp_path / "none"), before) == before
    _write(
        tmp_path / "new" / "one-rate" / "vqa.jsonl", [_run(m, 0, 0.25) for m in ("constant", "commit-clr", "commit")]
    )
    after = pages.page(results.Results(tmp_path / "new"), before)
    table1 = before.partition("### table1")[2]
    assert f"### table1{table1}\n### one-rate\n" in after
    assert "| better scores (Table 1) | test score | table1 | 0.000 | 0 | 0 | 0 | open |" in after
    assert "| the regulariser helps | validation loss | one-rate | 0.000 | 0 | 0 | 0 | open |" in after
    # the experiments' verdicts side by side
    assert "| claim | measured | table1 | one-rate |" in after
    assert "| better scores (Table 1) | test score | open |  |" in after
    assert "| the regulariser helps | validation loss |  | open |" in after
    # what is recorded again takes the place of what stood there
    _write(tmp_path / "new" / "table1" / "vqa.jsonl", [_run("constant", 0, 0.125)])
    assert "0.125" in pages.page(results.Results(tmp_path / "new"), after)
    assert "0.700" not in pages.page(results.Results(tmp_path / "new"), after)
