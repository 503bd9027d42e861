"""Figures of a balance: what is drawn, what is marked as undefined."""

from dataclasses import replace
from math import log10

import pytest
from _synthetic_balance import TASKS, probe_scores, write_balance

from equipoise.report.balance import figures
from equipoise.report.balance.compare import Relative, relative
from equipoise.report.balance.view import view_balance


@pytest.fixture
def view(tmp_path):
    return view_balance(write_balance(tmp_path / "b"))


@pytest.fixture
def degenerate(tmp_path):
    """Nothing can be said of `box`: it learnt nothing, and scores 0."""
    scores = probe_scores()
    scores["box+mini"]["box"] = scores["mini"]["box"] = 0.0
    return view_balance(write_balance(tmp_path / "d", scores=scores, on_degenerate="zero"))


def test_contributions_are_a_row_a_giver(view):
    cells, own = figures.contributions(view).data
    for giver, row in enumerate(cells.z):
        for taker, value in enumerate(row):
            if giver == taker:
                assert value is None
            else:
                expected = view.contributions[TASKS[giver]][TASKS[taker]]
                assert value == pytest.approx(expected, rel=1e-5)
                assert cells.text[giver][taker] == f"{expected:.2f}"
    assert (cells.zmin, cells.zmax) == (-1, 1)
    assert list(own.x) == list(own.y) == [0, 1, 2, 3]


def test_the_first_giver_is_on_top(view):
    figure = figures.contributions(view)
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    assert list(figure.layout.yaxis.ticktext) == list(TASKS)
    assert list(figure.layout.xaxis.ticktext) == [f"to {task}" for task in TASKS]


def test_an_undefined_column_is_marked(degenerate):
    figure = figures.contributions(degenerate)
    cells, own = figure.data
    assert [row[3] for row in cells.z] == [None] * 4
    assert list(own.x) == [0, 1, 2]
    (note,), (frame,) = figure.layout.annotations, figure.layout.shapes
    assert (note.text, note.x) == ("undefined", 3)
    assert frame.x0 < 3 < frame.x1
    assert "box*" in figure.layout.yaxis.ticktext


def test_difficulty(view, degenerate):
    (bars,) = figures.difficulty(view).data
    assert list(bars.x) == pytest.approx([view.difficulty[task] for task in TASKS], rel=1e-5)
    (bars,) = figures.difficulty(degenerate).data
    assert (bars.x[3], bars.text[3]) == (0, "undefined")


def test_negative_difficulties_are_in_range(view):
    figure = figures.difficulty(replace(view, difficulty=dict.fromkeys(TASKS, -0.5)))
    assert figure.layout.xaxis.range[0] < -0.5
    assert figure.layout.xaxis.range[1] >= 0


def test_weights_are_three_series_with_a_line_at_one(view):
    figure = figures.weights(view)
    assert [trace.name for trace in figure.data] == ["by contribution", "by difficulty", "final (cotbal)"]
    assert list(figure.data[2].x) == pytest.approx([view.weights["cotbal"][task] for task in TASKS], rel=1e-5)
    (line,) = figure.layout.shapes
    assert line.x0 == 1
    assert line.x0 < figure.layout.xaxis.range[1]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("difficulty", ["real", "precise"])
def test_all_scores_end_at_100_and_begin_below_by_their_difficulty(tmp_path, sign, difficulty):
    view = view_balance(write_balance(tmp_path / "b", sign=sign, difficulty=difficulty))
    figure = figures.score_by_data(view, 0.125)
    assert len(figure.data) == len(TASKS)
    for task, trace in zip(TASKS, figure.data, strict=True):
        assert list(trace.x) == [12.5, 100]
        assert list(trace.y) == pytest.approx([100 - 100 * view.difficulty[task], 100], rel=1e-4)
    low, high = figure.layout.xaxis.range
    assert low < log10(12.5) < log10(100) < high


def test_a_score_of_zero_is_not_drawn(degenerate):
    names = [trace.name for trace in figures.score_by_data(degenerate, 0.1).data]
    assert names == ["vqa", "caption", "region"]
    assert figures.score_by_data(replace(degenerate, tasks=("box",)), 0.1) is None


def test_radar_has_a_ring_and_the_methods_but_no_ablation(view):
    figure, centre = figures.radar(view, relative(view))
    assert [trace.name for trace in figure.data] == ["stl = 100", "cotbal", "ew", "rlw", "dwa", "igbv1"]
    assert [trace.meta.get("run") for trace in figure.data] == [None, 0, 1, 2, 3, 4]
    low, high = figure.layout.polar.radialaxis.range
    assert low == centre
    for trace in figure.data:
        assert all(low < value < high for value in trace.r)
    assert list(figure.data[1].r[:4]) == pytest.approx(
        [relative(view).values["cotbal"][task] for task in TASKS], rel=1e-4
    )
    assert figure.data[1].r[0] == figure.data[1].r[-1]


def test_the_measure_of_a_radar_is_its_ring(tmp_path):
    view = view_balance(write_balance(tmp_path / "b", compare=("ew", "dwa")))
    figure, _ = figures.radar(view, relative(view))
    assert [trace.name for trace in figure.data] == ["ew = 100", "cotbal", "dwa"]
    assert [trace.meta.get("run") for trace in figure.data] == [None, 0, 2]  # the colours of the page


@pytest.mark.parametrize("value", [-1e6, 0.0, 99.9999, 100.0, 1e6])
def test_every_radar_shows_all_of_it(view, value):
    found = Relative("stl", {"cotbal": {"a": value, "b": 100.0, "c": 101.0}}, ())
    figure, centre = figures.radar(view, found)
    low, high = figure.layout.polar.radialaxis.range
    assert centre == low < min(value, 100) <= max(value, 101) < high
    assert 0 < (high - low) / figure.layout.polar.radialaxis.dtick < 12


def test_two_tasks_are_no_radar(tmp_path):
    view = view_balance(write_balance(tmp_path / "b", tasks=("a", "b")))
    assert figures.radar(view, relative(view)) is None
