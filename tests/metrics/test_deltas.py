"""Delta I and Delta E: every row of CoTBal's Tables 2 and 4, to the printed digits; and what cannot be compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import DataError
from equipoise.metrics.deltas import deltas

# The tasks in the tables' order, each with its columns.
COLUMNS = {
    "ShareGPT4V": ["test"],
    "RefCOCO-caption": ["Ref-test", "Ref-testB", "Refg-test"],
    "VQAv2": ["test-dev"],
    "GQA": ["test-bal"],
    "ChartQA": ["test"],
    "OCRVQA": ["test"],
    "RefCOCO-bbox": ["Ref-test", "Ref-testB", "Refg-test"],
}
STL = "0.1285 0.4330 0.4658 0.6019 77.73 61.23 17.76 68.22 65.02 51.58 50.78"
# Scores | printed Delta I, Delta E.
TABLE_2 = {
    "EW": "0.1411 0.4738 0.5591 0.5937 78.27 62.20 19.60 67.73 76.05 61.63 62.80 | 7.30 0.10",
    "TLA": "0.1144 0.5083 0.5770 0.5327 77.72 60.42 22.36 67.80 71.79 56.58 58.40 | 4.94 1.85",
    "RLW": "0.1388 0.4810 0.5571 0.5538 77.28 60.61 18.20 66.73 70.78 55.86 57.01 | 3.44 0.54",
    "DWA": "0.1225 0.4659 0.5470 0.6006 78.28 61.82 19.88 67.87 76.74 61.12 63.88 | 5.35 0.74",
    "IGBv1": "0.1349 0.4267 0.4824 0.6017 77.00 60.92 17.20 65.96 70.39 55.47 55.99 | 0.92 1.13",
    "CoTBal": "0.1437 0.4649 0.5724 0.5874 77.99 61.81 20.16 67.48 82.62 67.38 69.19 | 9.45 0.15",
}
TABLE_4 = {
    "EW": "0.1411 0.4738 0.5591 0.5937 78.27 62.20 19.60 67.73 76.05 61.63 62.80 | 7.30 0.10",
    "T=2.0": "0.1433 0.4540 0.5642 0.5973 78.10 62.08 20.16 67.67 78.01 63.06 64.73 | 8.25 0.12",
    "T=1.0": "0.1369 0.4605 0.5752 0.5948 78.15 62.09 20.32 67.71 80.61 65.00 66.78 | 8.41 0.11",
    "T=0.5": "0.1437 0.4649 0.5724 0.5874 77.99 61.81 20.16 67.48 82.62 67.38 69.19 | 9.45 0.15",
    "one2all": "0.1448 0.4528 0.5763 0.6036 78.34 62.16 19.52 67.72 77.59 61.81 63.47 | 7.87 0.10",
    "all2one": "0.1333 0.4617 0.5520 0.5961 78.25 62.12 20.20 68.00 76.98 62.61 64.12 | 7.05 0.05",
    "lambda_C": "0.1340 0.4645 0.5626 0.5934 78.39 62.27 20.04 67.92 77.46 61.92 63.67 | 7.09 0.06",
    "lambda_D": "0.1455 0.4783 0.5706 0.5963 77.46 61.30 20.08 67.04 85.13 71.52 72.88 | 10.39 0.30",
    "lambda_CoTBal": "0.1437 0.4649 0.5724 0.5874 77.99 61.81 20.16 67.48 82.62 67.38 69.19 | 9.45 0.15",
    "precise": "0.1345 0.4767 0.5604 0.5952 78.00 61.87 21.04 67.46 82.06 67.83 69.08 | 9.20 0.16",
    "real": "0.1437 0.4649 0.5724 0.5874 77.99 61.81 20.16 67.48 82.62 67.38 69.19 | 9.45 0.15",
}


def row(numbers: str) -> dict[str, dict[str, float]]:
    values = map(float, numbers.split())
    return {task: {column: next(values) for column in columns} for task, columns in COLUMNS.items()}


@pytest.mark.parametrize("table", [TABLE_2, TABLE_4], ids=["table 2", "table 4"])
def test_every_row_of_the_papers_tables_to_the_printed_digits(table):
    scores = {"stl": row(STL)} | {method: row(line.split("|")[0]) for method, line in table.items()}
    found = deltas(scores)
    printed = {method: line.split("|")[1].split() for method, line in table.items()}
    assert {method: [f"{each.delta_i:.2f}", f"{each.delta_e:.2f}"] for method, each in found.items()} == printed


def test_improvements_by_hand():
    single = {"a": {"x": 2.0, "y": 10.0}, "b": {"x": 50.0}}
    method = {"a": {"x": 3.0, "y": 8.0}, "b": {"x": 40.0}}
    # a: the mean of +50% and -20%; b: -20%.
    result = deltas({"single": single, "m": method}, baseline="single")["m"]
    assert result.improvements == pytest.approx({"a": 15, "b": -20})
    assert result.delta_i == pytest.approx(-2.5)
    assert result.delta_e == pytest.approx(10)


def test_where_lower_is_better_the_sign_turns():
    scores = {"stl": {"a": {"wer": 0.2, "em": 0.5}}, "m": {"a": {"wer": 0.1, "em": 0.5}}}
    assert deltas(scores)["m"].delta_i == pytest.approx(-25)
    assert deltas(scores, lower_is_better=["wer"])["m"].delta_i == pytest.approx(25)


def test_a_negative_score_that_rises_is_an_improvement():
    assert deltas({"stl": {"a": {"x": -2.0}}, "m": {"a": {"x": -1.0}}})["m"].delta_i == pytest.approx(50)


def test_a_shortfall_in_one_task_is_not_made_up_for_by_another():
    scores = {"stl": {"a": {"x": 1.0}, "b": {"x": 1.0}}, "m": {"a": {"x": 2.0}, "b": {"x": 0.9}}}
    assert deltas(scores)["m"].delta_e == pytest.approx(5)


@given(
    pairs=st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=8),
    scale=st.floats(0.01, 100),
)
def test_the_scale_of_a_metric_does_not_count_and_the_shortfall_is_what_lowers_the_mean(pairs, scale):
    def scores(factor: float) -> dict[str, dict[str, dict[str, float]]]:
        return {
            name: {f"task {index}": {"x": pair[side] * factor} for index, pair in enumerate(pairs)}
            for side, name in enumerate(["stl", "m"])
        }

    result, scaled = deltas(scores(1))["m"], deltas(scores(scale))["m"]
    assert scaled.delta_i == pytest.approx(result.delta_i, abs=1e-9)
    assert result.delta_e >= 0
    assert result.delta_i + result.delta_e >= -1e-9
    gains = sum(max(0, value) for value in result.improvements.values()) / len(pairs)
    assert result.delta_i == pytest.approx(gains - result.delta_e, abs=1e-9)


def test_the_baseline_is_not_compared_with_itself():
    assert deltas({"stl": row(STL)}) == {}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, r"no scores of the baseline 'stl'; found those of no method"),
        ({"ew": {"a": {"x": 1.0}}}, r"no scores of the baseline 'stl'; found those of ew"),
        ({"stl": {}}, r"stl: found \{\}; needs one task or more, each with a score"),
        ({"stl": {"a": {}}}, r"stl: found \{'a': \{\}\}; needs one task"),
        ({"stl": {"a": {"x": 0.0}}}, r"stl: the score of task a, metric x is 0, so no improvement is defined"),
        (
            {"stl": {"a": {"x": 1.0}}, "ew": {"a": {}}},
            r"ew: no score of task a, metric x; ew and stl need the same ones",
        ),
        ({"stl": {"a": {"x": 1.0}}, "ew": {}}, r"ew: no score of task a, metric x"),
        ({"stl": {"a": {"x": 1.0}}, "ew": {"a": {"x": 1.0}, "b": {"y": 1.0}}}, r"stl: no score of task b, metric y"),
        (
            {"stl": {"a": {"x": 1.0}}, "ew": {"a": {"x": float("nan")}}},
            r"ew: the score of task a, metric x is nan, not",
        ),
        ({"stl": {"a": {"x": float("inf")}}}, r"stl: the score of task a, metric x is inf, not finite"),
    ],
)
def test_what_cannot_be_compared_is_one_line_that_says_where(scores, message):
    with pytest.raises(DataError, match=f"^{message}") as error:
        deltas(scores)
    assert "\n" not in str(error.value)


def test_a_method_may_score_zero():
    assert deltas({"stl": {"a": {"x": 1.0}}, "m": {"a": {"x": 0.0}}})["m"].delta_e == pytest.approx(100)
