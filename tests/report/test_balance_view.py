"""Reading a balance: whole, half done, damaged."""

import json

import pytest
from _synthetic_balance import TASKS, probe_scores, task_lines, write_balance, write_node

from equipoise.report.balance.view import is_balance, view_balance


@pytest.fixture
def whole(tmp_path):
    return write_balance(tmp_path / "b")


def test_whole(whole):
    view = view_balance(whole)
    assert view.label == "b"
    assert list(view.tasks) == list(TASKS)
    assert view.contributions["box"]["box"] == 1
    assert set(view.weights) == {"one2all", "all2one", "contribution", "difficulty", "cotbal"}
    assert list(view.runs) == ["cotbal", "ew", "rlw", "dwa", "igbv1"]
    assert "cotbal-T2" in view.results
    assert view.deltas["ew"].delta_i is not None
    assert view.answers == dict.fromkeys(TASKS, 64)
    assert (view.costs, list(view.missing)) == ({}, [])
    assert view.settings["mini_fraction"] == 0.125


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"tasks": 3, "contributions": {"a": 1}, "weights": [1], "nodes": [2]}']
)
def test_files_of_another_form(whole, text):
    for name in ("balance.json", "results.json", "costs.json"):
        (whole / name).write_text(text)
    view = view_balance(whole)
    assert view.results == view.weights == view.contributions == view.deltas == view.costs == {}
    # What the nodes hold is still there.
    assert list(view.runs) == ["cotbal", "ew", "rlw", "dwa", "igbv1"]
    assert view.scores["mini"] == probe_scores()["mini"]


def test_values_of_another_form(whole):
    balance = json.loads((whole / "balance.json").read_text())
    balance["contributions"][0] = [None, "x", float("nan"), 10**400]
    balance["contributions"][1] = None
    balance["weights"]["cotbal"] = {"vqa": True, "box": "1"}
    balance["degenerate"] = {"contributions": ["box", 3, ["x"]], "difficulty": None}
    (whole / "balance.json").write_text(json.dumps(balance))
    view = view_balance(whole)
    assert view.contributions["vqa"] == {}
    assert "caption" not in view.contributions
    assert "cotbal" not in view.weights
    assert view.degenerate == {"box"}
    assert (view.called("box"), view.called("vqa")) == ("box*", "vqa")


def test_only_some_nodes(tmp_path):
    write_node(tmp_path, "mini", validation={"a": 0.1, "b": 0.2})
    write_node(tmp_path, "a+mini", validation={"a": 0.4, "b": 0.2})
    (tmp_path / "nodes" / "b+mini-0123").mkdir()
    view = view_balance(tmp_path)
    assert list(view.tasks) == ["a", "b"]
    assert set(view.scores) == {"mini", "a+mini"}
    assert any("balance.json" in words for words in view.missing)
    assert any("results.json" in words for words in view.missing)


def test_before_the_weights_the_missing_scores_are_named(tmp_path):
    write_node(tmp_path, "mini", validation={"a": 0.1, "b": 0.2})
    write_node(tmp_path, "b+mini", validation={"a": 0.1, "b": 0.3})
    assert "the validation scores of a+mini" in view_balance(tmp_path).missing


def test_a_balance_that_stopped_at_an_undefined_contribution_says_so(tmp_path):
    write_node(tmp_path, "mini", validation={"a": 0.1, "b": 0.2})
    write_node(tmp_path, "a+mini", validation={"a": 0.1, "b": 0.3})
    write_node(tmp_path, "b+mini", validation={"a": 0.1, "b": 0.3})
    view = view_balance(tmp_path)
    assert (view.undefined_contributions, view.called("a"), view.called("b")) == (["a"], "a*", "b")


def test_an_empty_folder(tmp_path):
    assert not is_balance(tmp_path)
    view = view_balance(tmp_path)
    assert (list(view.tasks), view.runs) == ([], {})


def test_the_final_run_is_seen_before_the_results_are(tmp_path):
    write_node(tmp_path, "cotbal", task_lines(TASKS))
    assert list(view_balance(tmp_path).runs) == ["cotbal"]


def test_folders_of_an_earlier_state_are_not_guessed_between(tmp_path):
    for path in (write_node(tmp_path, "ew", task_lines(TASKS)), "ew-ffff"):
        (tmp_path / "nodes" / path).mkdir(exist_ok=True)
    view = view_balance(tmp_path)
    assert view.runs == {}
    assert any("several folders" in words for words in view.missing)
    (tmp_path / "results.json").write_text(json.dumps({"nodes": {"ew": "ew-0123456789ab"}}))
    assert view_balance(tmp_path).runs["ew"].columns


@pytest.mark.parametrize("folder", ["../outside", "/etc", "..", ".", "", None, 3])
def test_a_file_does_not_lead_out_of_its_folder(tmp_path, folder):
    (tmp_path / "b" / "nodes").mkdir(parents=True)
    write_node(tmp_path / "outside", "x", task_lines(TASKS))
    (tmp_path / "outside" / "nodes" / "x-0123456789ab").rename(tmp_path / "b" / "outside")
    (tmp_path / "b" / "results.json").write_text(json.dumps({"nodes": {"ew": folder}}))
    assert view_balance(tmp_path / "b").runs == {}


def test_a_method_without_its_log_keeps_its_place(whole):
    nodes = sorted((whole / "nodes").glob("ew-*"))
    (nodes[0] / "metrics.jsonl").write_bytes(b"\xff\xfe")
    view = view_balance(whole)
    assert list(view.runs)[1] == "ew"
    assert view.missing == ["the log of ew"]


def test_a_run_that_goes_on(whole):
    next((whole / "nodes").glob("dwa-*")).joinpath("done.json").unlink()
    (words,) = view_balance(whole).missing
    assert words.startswith("the end of dwa: training has not finished")


def test_costs(whole):
    costs = {"nodes": {"mini": {"training": 2.5, "scoring": None}, "x": 3}, "final": "cotbal"}
    (whole / "costs.json").write_text(json.dumps(costs))
    assert view_balance(whole).costs == {"mini": (2.5, None)}


def test_what_is_a_balance(whole, tmp_path):
    assert is_balance(whole)
    begun, run = tmp_path / "begun", tmp_path / "run"
    (begun / "nodes").mkdir(parents=True)
    assert is_balance(begun)
    (run / "nodes").mkdir(parents=True)
    (run / "recipe.yaml").write_text("tasks: []")
    assert not is_balance(run)
