"""What a balance found, in words."""

import pytest
from _synthetic_balance import TASKS, probe_scores, write_balance, write_node

from equipoise.report.balance.verdict import GOOD, NEUTRAL, POOR, caveat, findings
from equipoise.report.balance.view import BalanceView, DeltaView, view_balance


def said(view: BalanceView) -> dict[str, tuple[str, str]]:
    return {f.topic: (f.name, f"{f.evidence} {f.advice}") for f in findings(view)}


def by_hand(**changes) -> BalanceView:
    """Two tasks: a gives b 0.5 and b takes 0.1 from a."""
    found = {
        "tasks": ("a", "b"),
        "contributions": {"a": {"a": 1, "b": 0.5}, "b": {"a": -0.1, "b": 1}},
        "one2all": {"a": 0.5, "b": -0.1},
        "all2one": {"a": -0.1, "b": 0.5},
        "difficulty": {"a": 0.2, "b": 0.6},
        "weights": {
            "cotbal": {"a": 1.2, "b": 0.8},
            "contribution": {"a": 1.5, "b": 0.5},
            "difficulty": {"a": 0.9, "b": 1.1},
        },
        "settings": {"mini_fraction": 0.1, "seed": 3},
    }
    return BalanceView("x", **{**found, **changes})


def test_findings_by_hand():
    found = said(by_hand())
    assert found["Who gives"][0] == "a helps the others most"
    assert "50 % of what their own data gives" in found["Who gives"][1]
    assert "a to b, 0.50; the smallest b to a, -0.10" in found["Who gives"][1]
    assert found["Who receives"][0] == "a is helped least"
    assert found["Who needs its data"][0] == "b is hardest"
    assert "With 10 % of its data, b is 60 % below its score" in found["Who needs its data"][1]
    assert found["Final weights"] == (
        "More to a",
        "More to a 1.20 a would have 1.50 by contribution alone and 0.90 by difficulty alone. Less to b 0.80.",
    )
    assert "Compared" not in found
    assert "Not measured" not in found


def test_no_task_helps():
    found = said(by_hand(one2all={"a": -0.2, "b": -0.1}))
    assert found["Who gives"][0] == "No task helps the others"


def test_more_data_made_it_worse():
    assert "a is better with its subset" in said(by_hand(difficulty={"a": -0.2, "b": 0.6}))["Who needs its data"][1]


def test_tasks_that_are_alike_are_not_ranked():
    equal = {"a": 0.5, "b": 0.5}
    found = said(by_hand(one2all=equal, all2one=equal, difficulty=equal))
    names = [found[topic][0] for topic in ("Who gives", "Who receives", "Who needs its data")]
    assert names == ["All tasks help alike", "All tasks are helped alike", "All tasks are as hard"]


def test_equal_weights():
    found = said(by_hand(weights={"cotbal": {"a": 1.0, "b": 1.0}}))
    assert found["Final weights"][0] == "All weights are equal"


def test_undefined_quantities_are_not_ranked(tmp_path):
    scores = probe_scores()
    scores["box+mini"]["box"] = scores["mini"]["box"]  # learnt nothing
    view = view_balance(write_balance(tmp_path / "b", scores=scores, on_degenerate="zero", zero_for="vqa"))
    found = said(view)
    assert found["Not measured"][0] == "Undefined for box*"
    assert "0.450 with its subset, 0.450 with all" in found["Not measured"][1]
    assert "task vqa" in found["Not measured"][1]
    # Its all2one counts as 0, which says nothing of the task.
    assert "box" not in found["Who receives"][0] + found["Who receives"][1]
    assert "to box" not in found["Who gives"][1]


def test_contributions_that_leave_most_tasks_nothing_are_said(tmp_path):
    scores = probe_scores()
    scores["box+mini"]["box"] = scores["mini"]["box"] + 1e-4
    found = said(view_balance(write_balance(tmp_path / "b", scores=scores)))
    assert found["Hardly measured"][0] == "Contributions leave most tasks nothing"
    assert "contributions to box, divided by what it gained by its own data" in found["Hardly measured"][1]


def test_before_the_weights_an_undefined_contribution_is_why_there_are_none(tmp_path):
    write_node(tmp_path, "mini", validation={"a": 0.5, "b": 0.2})
    write_node(tmp_path, "a+mini", validation={"a": 0.25, "b": 0.3})
    found = said(view_balance(tmp_path))
    assert list(found) == ["Not measured"]
    assert "0.500 with its subset, 0.250 with all" in found["Not measured"][1]
    assert "at which balance stops" in found["Not measured"][1]


def deltas(**values):
    return {name: DeltaView(i, e, {}) for name, (i, e) in values.items()}


@pytest.mark.parametrize(
    ("of", "name", "tone"),
    [
        ({"cotbal": (2.0, 0.5), "ew": (1.0, 0.1)}, "cotbal has the highest ΔI of 2", GOOD),
        ({"cotbal": (2.0, 0.5), "ew": (3.0, 0.1)}, "ew above cotbal", POOR),
        ({"cotbal": (0.0, 0.0), "ew": (0.0, 0.0)}, "cotbal is level with ew", NEUTRAL),
        ({"cotbal": (2.0, 0.5)}, "cotbal is above one model per task", GOOD),
        ({"cotbal": (-2.0, 2.5)}, "cotbal is not above one model per task", POOR),
    ],
)
def test_comparison_with_deltas(of, name, tone):
    names = ["stl", *of]
    results = {method: {"a": {"m": 1.0 + place}} for place, method in enumerate(names)}
    view = by_hand(results=results, deltas=deltas(**of), runs=dict.fromkeys(of))
    (found,) = [f for f in findings(view) if f.topic == "Compared"]
    assert (found.name, found.tone) == (name, tone)
    assert f"cotbal ΔI {of['cotbal'][0]:.2f} %" in found.evidence
    assert "than stl 1 (0)" in found.advice


def test_an_ablation_is_no_rival():
    results = {name: {"a": {"m": 1.0}} for name in ("stl", "cotbal", "cotbal-T2")}
    view = by_hand(results=results, runs={"cotbal": None}, deltas=deltas(**{"cotbal": (1, 0), "cotbal-T2": (9, 0)}))
    assert "cotbal-T2" not in said(view)["Compared"][0]


def test_comparison_without_single_task_models():
    results = {"cotbal": {"a": {"m": 2.0}, "b": {"m": 1.0}}, "ew": {"a": {"m": 1.0}, "b": {"m": 1.0}}}
    name, words = said(by_hand(results=results, runs=dict.fromkeys(results)))["Compared"]
    assert name == "cotbal is ahead of ew on more tasks"
    assert "need one model per task" in words
    assert "than ew 1 (0)" in words
    results["dwa"] = {"a": {"m": 3.0}, "b": {"m": 2.0}}
    assert said(by_hand(results=results, runs=dict.fromkeys(results)))["Compared"][0] == (
        "Ahead of cotbal on more tasks: dwa"
    )
    results["dwa"] = {"a": {"m": 3.0}, "b": {"m": 0.5}}
    assert said(by_hand(results=results, runs=dict.fromkeys(results)))["Compared"][0] == "cotbal is not ahead of dwa"


def test_nothing_to_compare_with():
    found = said(by_hand(results={"cotbal": {"a": {"m": 2.0}}}, runs={"cotbal": None}))
    assert found["Compared"][0] == "cotbal stands alone"


def test_caveat_counts_answers():
    words = caveat(by_hand(answers={"a": 64, "b": 100}))
    assert "seed 3" in words
    assert "64 to 100 answers" in words
    assert "up to 0.06" in words  # sqrt(0.25 / 64)


def test_nothing_known():
    assert findings(BalanceView("x")) == []
    assert caveat(BalanceView("x")) == ""


def test_a_whole_balance(tmp_path):
    found = said(view_balance(write_balance(tmp_path / "b")))
    assert list(found) == ["Who gives", "Who receives", "Who needs its data", "Final weights", "Compared"]
    assert any(task in found["Who gives"][0] for task in TASKS)
