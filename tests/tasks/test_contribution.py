"""C, D and the five weight vectors: the paper's numbers, closed forms, what must not matter, degenerate scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import DataError, RecipeError
from equipoise.tasks.contribution import (
    all2one,
    balance_tasks,
    contributions,
    difficulty,
    no_contribution_to,
    no_difficulty_of,
    one2all,
    one_takes_all,
    task_weights,
)

# The authors' release prints these for LLaVA-1.5-7B (ShareGPT4V, RefCOCO-caption, VQAv2, GQA, ChartQA, OCRVQA,
# RefCOCO-bbox), for the 13B model on the same tasks, and for LLaVA's own three. Its third row is 1 - D.
RELEASED = {
    "7B": """0.1637 0.1903 0.1952 0.1433 0.0768 0.1316 0.1582
             0.1634 0.2179 0.1326 0.1775 0.1674 0.0783 0.1219
             0.7597 0.5313 0.8852 0.7979 0.5511 0.8680 0.1904
             0.8585 1.0557 0.8107 0.8151 1.0020 0.8177 1.6403""",
    "13B": """0.1885 0.2192 0.1561 0.1390 0.0409 0.1519 0.1248
              0.0551 0.2067 0.1497 0.2181 0.1392 0.0702 0.1813
              0.6814 0.5744 0.8916 0.8065 0.5705 0.8715 0.1247
              0.9731 1.0089 0.7659 0.7752 0.9582 0.8171 1.7015""",
    "chat": """0.7601 0.3496 1.6727
               1.2890 0.9779 0.5156
               0.8636 0.3534 0.9593
               0.5234 1.1327 1.3439""",
}

# Scores in quarters and eighths, so that every expectation below is exact. b is learnt from nothing but itself.
SCORES = {
    "mini": {"a": 0.25, "b": 0.5, "c": -2.0},
    "a+mini": {"a": 0.75, "b": 0.5, "c": -1.5},
    "b+mini": {"a": 0.5, "b": 1.0, "c": -2.5},
    "c+mini": {"a": 0.125, "b": 0.5, "c": -1.0},
}
C = [[1, 0, 0.5], [0.5, 1, -0.5], [-0.25, 0, 1]]
ONE2ALL = {"a": 0.25, "b": 0.0, "c": -0.125}
ALL2ONE = {"a": 0.125, "b": 0.0, "c": 0.0}
DIFFICULTY = {"a": 2 / 3, "b": 0.5, "c": 1.0}

several = st.integers(2, 6)


@st.composite
def score_tables(draw: st.DrawFn) -> dict[str, dict[str, float]]:
    """Scores with no degenerate task."""
    tasks = [f"t{index}" for index in range(draw(several))]
    score = st.floats(0.1, 1)
    table = {run: {task: draw(score) for task in tasks} for run in ("mini", *(f"{task}+mini" for task in tasks))}
    for task in tasks:
        table[f"{task}+mini"][task] = table["mini"][task] + draw(st.floats(0.05, 1))
    return table


def by_hand(values: dict[str, float], sign: float, temperature: float) -> dict[str, float]:
    """N softmax(sign values / T), term by term."""
    exponentials = {task: math.exp(sign * value / temperature) for task, value in values.items()}
    return {task: len(values) * term / sum(exponentials.values()) for task, term in exponentials.items()}


# ---------------------------------------------------------------------------------------------- the paper's numbers


@pytest.mark.parametrize("model", RELEASED)
def test_the_released_weights_to_four_decimals(model):
    giving, receiving, ease, expected = ([float(cell) for cell in line.split()] for line in RELEASED[model].split("\n"))
    found = task_weights(giving, receiving, [1 - value for value in ease])["cotbal"]
    assert [f"{value:.4f}" for value in found] == [f"{value:.4f}" for value in expected]


# ---------------------------------------------------------------------------------------------- closed forms


def test_contributions_and_difficulties_by_hand():
    found = balance_tasks(SCORES)
    assert found.tasks == ("a", "b", "c")
    assert found.contributions.tolist() == C
    assert dict(zip(found.tasks, found.one2all)) == ONE2ALL
    assert dict(zip(found.tasks, found.all2one)) == ALL2ONE
    assert dict(zip(found.tasks, found.difficulty)) == pytest.approx(DIFFICULTY, rel=1e-15)


@pytest.mark.parametrize(("temperature", "alpha"), [(0.5, 0.5), (2.0, 0.25), (0.1, 0.0), (1.0, 1.0)])
def test_the_five_vectors_by_hand(temperature, alpha):
    weights = balance_tasks(SCORES, temperature, alpha).as_dict()["weights"]
    giving, receiving = by_hand(ONE2ALL, 1, temperature), by_hand(ALL2ONE, -1, temperature)
    contribution = {task: (giving[task] + receiving[task]) / 2 for task in "abc"}
    hard = by_hand(DIFFICULTY, 1, temperature)
    expected = {
        "one2all": giving,
        "all2one": receiving,
        "contribution": contribution,
        "difficulty": hard,
        "cotbal": {task: alpha * contribution[task] + (1 - alpha) * hard[task] for task in "abc"},
    }
    assert weights.keys() == expected.keys()
    for name, vector in expected.items():
        assert weights[name] == pytest.approx(vector, rel=1e-12), name


def test_the_papers_temperature_and_alpha_are_the_defaults():
    assert balance_tasks(SCORES).as_dict() == balance_tasks(SCORES, 0.5, 0.5).as_dict()
    given = balance_tasks(SCORES)
    again = task_weights(given.one2all, given.all2one, given.difficulty)
    assert again["cotbal"].tolist() == given.weights["cotbal"].tolist()


def test_the_order_of_runs_and_of_tasks_within_them_does_not_matter():
    shuffled = {run: dict(reversed(SCORES[run].items())) for run in ("c+mini", "a+mini", "b+mini")}
    assert balance_tasks({**shuffled, "mini": SCORES["mini"]}).as_dict() == balance_tasks(SCORES).as_dict()


def test_difficulty_is_equation_9_for_positive_scores_and_keeps_its_meaning_for_negated_ones():
    assert difficulty([0.2, 3.0], [0.5, 4.0]) == pytest.approx([1 - 0.2 / 0.5, 1 - 3 / 4])
    assert difficulty([-4.0], [-2.0]).tolist() == [1.0]  # an error that halves
    assert difficulty([-1.0], [1.0]).tolist() == [2.0]


def test_precise_difficulties_come_from_runs_on_one_task_alone():
    found = balance_tasks(SCORES, precise={"a": (0.25, 1.0), "b": (0.125, 0.5), "c": (-3.0, -2.0)})
    assert found.difficulty.tolist() == [0.75, 0.75, 0.5]
    assert found.contributions.tolist() == C


def test_with_two_tasks_the_mean_over_the_others_is_the_other():
    found = balance_tasks({"mini": {"a": 1, "b": 1}, "a+mini": {"a": 2, "b": 1.5}, "b+mini": {"a": 1.25, "b": 3}})
    assert found.one2all.tolist() == [0.25, 0.25]
    assert found.all2one.tolist() == [0.25, 0.25]
    assert found.difficulty.tolist() == pytest.approx([1 / 2, 2 / 3])


def test_one_task_has_weight_1():
    found = balance_tasks({"mini": {"a": 0.25}, "a+mini": {"a": 0.5}}).as_dict()
    assert found["contributions"] == [[1.0]]
    assert (found["one2all"], found["all2one"], found["difficulty"]) == ({"a": 0.0}, {"a": 0.0}, {"a": 0.5})
    assert set(found["weights"]) == {"one2all", "all2one", "contribution", "difficulty", "cotbal"}
    assert all(vector == {"a": 1.0} for vector in found["weights"].values())


def test_the_smallest_temperature_gives_all_weight_to_the_first_task_and_leaves_none_at_zero():
    weights = balance_tasks(SCORES, temperature=1e-300).weights
    assert weights["one2all"][0] == 3.0
    assert all((vector > 0).all() for vector in weights.values())


# ---------------------------------------------------------------------------------------------- what must not matter


@given(scores=score_tables(), temperature=st.floats(0.05, 10), alpha=st.floats(0, 1))
def test_weights_are_positive_and_sum_to_the_number_of_tasks(scores, temperature, alpha):
    found = balance_tasks(scores, temperature, alpha)
    for vector in found.weights.values():
        assert vector.sum() == pytest.approx(len(found.tasks), rel=1e-12)
        assert (vector > 0).all()


@given(scores=score_tables(), data=st.data())
def test_tasks_in_another_order_have_the_same_weights(scores, data):
    order = data.draw(st.permutations(list(scores["mini"])))
    other = balance_tasks({run: {task: scores[run][task] for task in order} for run in scores}).as_dict()
    found = balance_tasks(scores).as_dict()
    assert other["tasks"] == order
    for name in ("one2all", "all2one", "difficulty"):
        assert other[name] == pytest.approx(found[name], rel=1e-9, abs=1e-12)
    for name, vector in found["weights"].items():
        assert other["weights"][name] == pytest.approx(vector, rel=1e-9)
    # The matrix moves with its rows and its columns.
    places = [found["tasks"].index(task) for task in order]
    assert np.array(other["contributions"]) == pytest.approx(
        np.array(found["contributions"])[np.ix_(places, places)], rel=1e-12
    )


@given(scores=score_tables(), scale=st.floats(0.1, 100), shift=st.floats(-5, 5), data=st.data())
def test_contributions_see_neither_unit_nor_origin_of_a_score_and_difficulty_no_unit(scores, scale, shift, data):
    task = data.draw(st.sampled_from(list(scores["mini"])))

    def changed(offset: float) -> dict[str, dict[str, float]]:
        return {run: {**row, task: scale * row[task] + offset} for run, row in scores.items()}

    found = balance_tasks(scores)
    assert balance_tasks(changed(shift)).contributions == pytest.approx(found.contributions, rel=1e-6, abs=1e-6)
    assert balance_tasks(changed(0.0)).difficulty == pytest.approx(found.difficulty, rel=1e-9)


@given(scores=score_tables())
def test_a_great_temperature_makes_all_weights_1(scores):
    for vector in balance_tasks(scores, temperature=1e9).weights.values():
        assert vector == pytest.approx(np.ones(len(vector)), abs=1e-6)


@given(values=st.lists(st.floats(-3, 3), min_size=2, max_size=6), shift=st.floats(-50, 50))
def test_what_is_added_to_all_values_does_not_count(values, shift):
    moved = [value + shift for value in values]
    found, other = task_weights(values, values, values), task_weights(moved, moved, moved)
    for name, vector in found.items():
        assert other[name] == pytest.approx(vector, rel=1e-9)


@given(scores=score_tables())
def test_more_weight_to_what_gives_more_receives_less_and_is_harder(scores):
    found = balance_tasks(scores)
    for name, values, sign in (
        ("one2all", found.one2all, 1),
        ("all2one", found.all2one, -1),
        ("difficulty", found.difficulty, 1),
    ):
        ranked = found.weights[name][np.argsort(sign * values, kind="stable")]
        assert (np.diff(ranked) >= -1e-9).all()


# ---------------------------------------------------------------------------------------------- degenerate scores


def changed(**cells: float) -> dict[str, dict[str, float]]:
    """SCORES with some cells replaced, named `run__task` with `_` for `+`."""
    table = {run: dict(row) for run, row in SCORES.items()}
    for name, value in cells.items():
        run, task = name.split("__")
        table[run.replace("_", "+")][task] = value
    return table


NO_GAIN = "task b: score 0.5 after b+mini is not above 0.5 after mini, so no contribution to it is defined"
LOSS = "task b: score 0.25 after b+mini is not above 0.5 after mini, so no contribution to it is defined"
NOTHING = "task c: score 0 with all of its data (-2.0 with its subset), so its difficulty is not defined"


@pytest.mark.parametrize(
    ("scores", "reasons"),
    [
        (changed(b_mini__b=0.5), [NO_GAIN]),
        (changed(b_mini__b=0.25), [LOSS]),
        (changed(c_mini__c=0.0), [NOTHING]),
        (changed(b_mini__b=0.5, c_mini__c=0.0), [NO_GAIN, NOTHING]),
        (
            changed(mini__a=0.0, a_mini__a=0.0),
            [
                "task a: score 0.0 after a+mini is not above 0.0 after mini, so no contribution to it is defined",
                "task a: score 0 with all of its data (0.0 with its subset), so its difficulty is not defined",
            ],
        ),
    ],
)
def test_an_undefined_quantity_is_an_error_with_the_task_and_both_scores(scores, reasons):
    with pytest.raises(DataError) as error:
        balance_tasks(scores)
    assert str(error.value) == f"{'; '.join(reasons)} (--on-degenerate zero takes 0 instead)"


def test_a_task_that_gains_nothing_has_contributions_of_0_on_demand_and_is_flagged():
    found = balance_tasks(changed(b_mini__b=0.25, a_mini__b=4.0), on_degenerate="zero")
    assert found.contributions.tolist() == [[1, 0, 0.5], [0.5, 0, -0.5], [-0.25, 0, 1]]
    assert found.all2one.tolist() == [0.125, 0.0, 0.0]
    assert found.difficulty[1] == -1.0  # defined, and says that more data made it worse
    assert (found.undefined_contributions, found.undefined_difficulties) == (("b",), ())
    assert found.as_dict()["degenerate"] == {"contributions": ["b"], "difficulty": []}
    assert found.weights["cotbal"].sum() == pytest.approx(3)


def test_a_score_of_0_has_a_difficulty_of_0_on_demand_and_is_flagged():
    found = balance_tasks(changed(c_mini__c=0.0), on_degenerate="zero")
    assert found.difficulty.tolist() == pytest.approx([2 / 3, 0.5, 0.0])
    assert found.contributions[0].tolist() == [1, 0, 0.25]
    assert found.as_dict()["degenerate"] == {"contributions": [], "difficulty": ["c"]}


def test_with_no_task_that_gains_all_contribution_weights_are_1_on_demand():
    found = balance_tasks(changed(a_mini__a=0.25, b_mini__b=0.5, c_mini__c=-2.0), on_degenerate="zero")
    assert found.weights["contribution"].tolist() == [1, 1, 1]
    assert found.undefined_contributions == ("a", "b", "c")


def test_nothing_is_flagged_where_all_is_defined():
    found = balance_tasks(SCORES, on_degenerate="zero")
    assert "degenerate" not in found.as_dict()
    assert found.as_dict() == balance_tasks(SCORES).as_dict()


def test_a_precise_difficulty_is_judged_by_its_own_scores():
    precise = {"a": (0.25, 1.0), "b": (0.125, 0.5), "c": (-3.0, 0.0)}
    with pytest.raises(DataError, match=r"^task c: score 0 with all of its data \(-3.0 with its subset\)"):
        balance_tasks(SCORES, precise=precise)
    precise["c"] = (-3.0, -1.0)
    assert balance_tasks(changed(c_mini__c=0.0), precise=precise).difficulty[2] == 2.0


def test_a_plan_can_ask_as_soon_as_the_two_scores_exist():
    assert no_contribution_to("b", 0.5, 0.5) == NO_GAIN
    assert no_contribution_to("b", 0.5, 0.25) == LOSS
    assert no_contribution_to("b", 0.5, 0.51) is None
    assert no_difficulty_of("c", -2.0, 0.0) == NOTHING
    assert no_difficulty_of("c", -2.0, -0.1) is None


def test_quotients_that_overflow_are_undefined_too():
    scores = changed(mini__b=0.0, b_mini__b=5e-324)
    with pytest.raises(DataError, match=r"^task b: its scores lie so far apart"):
        balance_tasks(scores)
    found = balance_tasks(scores, on_degenerate="zero")
    assert found.undefined_contributions == ("b",)
    assert np.isfinite(found.contributions).all()
    with pytest.raises(DataError, match=r"^task a: its scores lie so far apart.*; task a: its scores lie so far"):
        balance_tasks(changed(mini__a=-1.5e308, a_mini__a=1.5e308))


def test_contributions_next_to_overflow_still_have_means():
    found = balance_tasks(changed(mini__a=0.0, a_mini__a=1e-300, b_mini__a=1.5e8, c_mini__a=1.5e8))
    assert found.contributions[1:, 0].tolist() == pytest.approx([1.5e308, 1.5e308])
    assert found.all2one[0] == pytest.approx(1.5e308)
    assert found.weights["all2one"].sum() == pytest.approx(3)


@pytest.mark.parametrize(("share", "all_of_it"), [(0.991, True), (0.989, False)])
@pytest.mark.parametrize("way", ["one2all", "all2one"])
def test_a_task_that_takes_all_the_weight_is_said(way, share, all_of_it):
    other = {"one2all": "all2one", "all2one": "one2all"}[way]
    rest = 4 * (1 - share) / 3
    weights = {way: {"a": rest, "b": rest, "c": 4 * share, "d": rest}, other: dict.fromkeys("abcd", 1.0)}
    contributions = {giver: {"a": 1.0, "b": -3.0, "c": 2.0, "d": 0.5} for giver in "acd"} | {"b": {"b": 99.0, "c": 2.5}}
    said = one_takes_all(weights, contributions)
    assert (said is not None) == all_of_it
    if said is not None:
        assert said.startswith(
            f"all weight by {way} goes to c: contributions to b, divided by what it gained by its own"
        )
        assert " are -3 to -3; " in said


def test_weights_that_are_none_have_no_such_task():
    nothing = {"one2all": {"a": 0.0, "b": 0.0}}  # of a file that something else wrote
    assert one_takes_all(nothing, {"a": {"b": 0.5}, "b": {"a": 0.5}}) is None


def test_a_gain_near_nothing_is_said_with_both_ways():
    # The embedded mixture's seed 4 (docs/experiments.md): captions gain 0.005 by all of their own data.
    found = balance_tasks(
        {
            "mini": {"vqa": 0.5, "caption": 6.439, "chart": 0.0},
            "vqa+mini": {"vqa": 0.766, "caption": 6.013, "chart": 0.07},
            "caption+mini": {"vqa": 0.453, "caption": 6.444, "chart": 0.0},
            "chart+mini": {"vqa": 0.484, "caption": 5.245, "chart": 0.15},
        }
    )
    assert found.caution is not None
    assert found.caution.startswith(
        "all weight by one2all goes to caption, all by all2one goes to caption: contributions to caption"
    )
    assert " are -238.8 to -85.2; " in found.caution
    assert balance_tasks(changed()).caution is None


def test_the_functions_on_arrays_say_nan():
    assert np.isnan(contributions([0.5, 0.5], [[0.5, 0.6], [0.7, 0.6]])).tolist() == [[True, False], [True, False]]
    assert np.isnan(difficulty([1.0, 1.0], [0.0, 2.0])).tolist() == [True, False]


def test_means_leave_a_task_itself_out():
    matrix = [[100.0, 1.0, 2.0], [3.0, 100.0, 4.0], [5.0, 6.0, 100.0]]
    assert one2all(matrix).tolist() == [1.5, 3.5, 5.5]
    assert all2one(matrix).tolist() == [4.0, 3.5, 3.0]


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        ({}, "no scores of run 'mini'; found no run"),
        ({"mini": {}}, "no scores of run 'mini'; found 'mini'"),
        ({"a+mini": {"a": 1.0}}, "no scores of run 'mini'; found 'a+mini'"),
        ({"mini": {"a": 0.0}}, "no scores of run 'a+mini'; the tasks a need one each, and 'mini'"),
        (
            {**SCORES, "d+mini": SCORES["mini"]},
            "run 'd+mini' belongs to no task; allowed: mini, a+mini, b+mini, c+mini",
        ),
        ({**SCORES, "b+mini": {"a": 1.0, "c": 1.0}}, "run 'b+mini': no score of task 'b'; every run scores a, b, c"),
        (
            {**SCORES, "b+mini": {**SCORES["b+mini"], "d": 1.0}},
            "run 'b+mini': unknown task 'd'; every run scores a, b, c",
        ),
        (changed(c_mini__a=math.nan), "run 'c+mini': the score of task a is nan, not finite"),
        (changed(mini__a=-math.inf), "run 'mini': the score of task a is -inf, not finite"),
    ],
)
def test_scores_that_do_not_fit_together(scores, line):
    with pytest.raises(DataError) as error:
        balance_tasks(scores)
    assert str(error.value) == line


@pytest.mark.parametrize("pair", [None, (0.5, math.nan)])
def test_precise_scores_that_are_missing(pair):
    precise = {"a": (0.25, 1.0), "b": (0.125, 0.5)} | ({"c": pair} if pair else {})
    with pytest.raises(DataError, match=r"^task c: its scores after training on it alone are .*two finite ones"):
        balance_tasks(SCORES, precise=precise)


@pytest.mark.parametrize(
    ("temperature", "alpha", "line"),
    [
        (0.0, 0.5, "temperature: found 0; it must be above 0 and finite"),
        (-1.0, 0.5, "temperature: found -1; it must be above 0 and finite"),
        (math.nan, 0.5, "temperature: found nan; it must be above 0 and finite"),
        (math.inf, 0.5, "temperature: found inf; it must be above 0 and finite"),
        (0.5, -0.1, "alpha: found -0.1; it must be from 0 to 1"),
        (0.5, 1.1, "alpha: found 1.1; it must be from 0 to 1"),
        (0.5, math.nan, "alpha: found nan; it must be from 0 to 1"),
    ],
)
def test_settings_out_of_range(temperature, alpha, line):
    with pytest.raises(RecipeError) as error:
        balance_tasks(SCORES, temperature, alpha)
    assert str(error.value) == line
