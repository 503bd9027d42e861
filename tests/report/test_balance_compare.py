"""Methods in percent of others."""

import pytest
from _synthetic_balance import TASKS, write_balance

from equipoise.report.balance.compare import relative, wins
from equipoise.report.balance.view import BalanceView, view_balance


def values(**methods):
    """By method, by task; each task with one metric."""
    return {name: {task: {"m": value} for task, value in of.items()} for name, of in methods.items()}


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_against_one_model_per_task_it_is_delta_i(tmp_path, sign):
    view = view_balance(write_balance(tmp_path / "b", sign=sign))
    found = relative(view)
    assert found.baseline == "stl"
    for method, delta in view.deltas.items():
        assert found.values[method] == pytest.approx({task: 100 + delta.tasks[task] for task in TASKS})
    assert found.values["stl"] == pytest.approx(dict.fromkeys(TASKS, 100))


def test_a_negative_score_that_rises_is_above_100():
    found = relative(BalanceView("b", results=values(stl={"a": -4.0}, cotbal={"a": -3.0}, ew={"a": -5.0})))
    assert (found.values["cotbal"]["a"], found.values["ew"]["a"]) == (125, 75)


def test_without_single_task_models_equal_weights_are_the_measure():
    found = relative(BalanceView("b", results=values(cotbal={"a": 3.0}, ew={"a": 2.0})))
    assert (found.baseline, found.values["cotbal"]) == ("ew", {"a": 150})


def test_else_the_best_of_each_task():
    found = relative(BalanceView("b", results=values(cotbal={"a": 3.0, "b": -2.0}, dwa={"a": 4.0, "b": -4.0})))
    assert found.baseline is None
    assert found.values == {"cotbal": {"a": 75, "b": 100}, "dwa": {"a": 100, "b": 0}}


def test_a_score_of_zero_is_no_measure():
    found = relative(BalanceView("b", results=values(stl={"a": 0.0, "b": 1.0}, ew={"a": 0.4, "b": 2.0})))
    assert found.undefined == ("a",)
    assert found.values["ew"] == {"b": 200}


def test_scores_out_of_all_proportion_are_left_out():
    found = relative(BalanceView("b", results=values(stl={"a": 1e-300, "b": 1.0}, ew={"a": 1e300, "b": 1.0})))
    assert found.values["ew"] == {"b": 100}


def test_several_test_sets_are_averaged():
    results = {"stl": {"a": {"m": 1.0, "x m": 2.0}}, "ew": {"a": {"m": 2.0, "x m": 2.0}}}
    assert relative(BalanceView("b", results=results)).values["ew"] == {"a": 150}


def test_wins():
    assert wins({"a": 2, "b": 1, "c": 1, "d": 9}, {"a": 1, "b": 2, "c": 1}) == (1, 1, 1)


def test_no_results():
    assert relative(BalanceView("b")).values == {}
