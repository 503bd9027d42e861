"""Figures: what is drawn, and that axes show all of it."""

import math

import pytest
from _synthetic_runs import around, log_lines, write_run

from equipoise.report import figures, kappa_figure
from equipoise.report.canvas import POINTS, drawn, thin, trailing_mean
from equipoise.report.palette import LIGHT, colour, dash
from equipoise.report.view import view_all


@pytest.fixture
def two(tmp_path):
    return [
        write_run(tmp_path / "constant", log_lines({"llm": around(2.2, 0.4)})),
        write_run(tmp_path / "commit", log_lines({"llm": around(0.1, 0.4)}, moving=True)),
    ]


def test_kappa_of_one_run(two):
    figure = kappa_figure(two[:1])
    faint, thick = figure.data
    assert (faint.line.width, faint.opacity) < (thick.line.width, thick.opacity)
    assert figure.layout.yaxis.type == "log"
    line, band = sorted(figure.layout.shapes, key=lambda shape: shape.type)
    assert (line.y0, line.y1) == (1, 1)
    assert (band.y0, band.y1) == pytest.approx((1 / 3, 3))


def test_kappa_of_several_runs_has_a_colour_a_run(two):
    figure = kappa_figure(two)
    assert len(figure.data) == 4
    assert len({trace.line.color for trace in figure.data}) == 2
    assert [trace.name for trace in figure.data if trace.showlegend] == ["constant", "commit"]


@pytest.mark.parametrize("centre", [-6.0, 0.0, 6.0])
def test_every_kappa_and_the_line_at_1_are_in_range(tmp_path, centre):
    figure = kappa_figure([write_run(tmp_path / "a", log_lines({"llm": around(centre, 0.3)}))])
    low, high = figure.layout.yaxis.range
    assert all(low < math.log10(value) < high for value in [*drawn(figure), 1.0])


def test_three_modules(tmp_path):
    log = log_lines({"vision_tower": around(-1, 0.3), "llm": around(1, 0.3)})
    runs = [write_run(tmp_path / name, log) for name in "ab"]
    one, several = view_all(runs[:1]), view_all(runs)
    assert len(figures.kappa(one).data) == 4
    assert [trace.name for trace in figures.by_module(one, "drift/", "drift").data] == [
        "projector",
        "vision_tower",
        "llm",
    ]
    figure = figures.by_module(several, "drift/", "drift")
    assert len(figure.data) == 6
    titles = [axis.title.text for axis in (figure.layout.yaxis, figure.layout.yaxis2, figure.layout.yaxis3)]
    assert titles == ["drift, projector", "drift, vision_tower", "drift, llm"]


def test_a_module_has_one_colour_in_all_figures_of_a_run(tmp_path):
    log = log_lines({"llm": around(0, 0.3)})
    for line in log:
        line.pop("drift/projector", None)
    views = view_all([write_run(tmp_path / "a", log)])
    drift = figures.by_module(views, "drift/", "drift").data
    rate = figures.by_module(views, "lr/", "rate").data
    assert drift[0].line.color == rate[1].line.color


def test_runs_of_unlike_modules(tmp_path, two):
    third = write_run(tmp_path / "c", log_lines({"llm": around(0, 0.3)}, reference="qformer"))
    figure = figures.by_module(view_all([two[0], third]), "drift/", "drift")
    assert sorted(trace.name for trace in figure.data) == ["c", "c", "constant", "constant"]


def test_loss_and_lambda(two):
    views = view_all(two)
    names = [trace.name for trace in figures.loss(views[:1]).data]
    assert names == ["training, each step", "training, mean of 10", "validation"]
    low, high = figures.convergence_factor(views).layout.yaxis.range
    assert low < 1 < high


def test_learning_rate_axis_stops_a_thousandth_below(tmp_path):
    figure = figures.learning_rate(view_all([write_run(tmp_path / "a", log_lines({"llm": around(0, 0.3, 400)}))]))
    low, high = figure.layout.yaxis.range
    assert high - low < 3.5


def test_zero_values_do_not_break_a_logarithmic_axis(tmp_path):
    log = [{"step": step, "drift/projector": 0.0, "drift/llm": 0.0, "lr/llm": 0.0} for step in range(3)]
    views = view_all([write_run(tmp_path / "a", log)])
    figures.by_module(views, "drift/", "drift")
    figures.learning_rate(views)


def test_names_from_files_are_not_read_as_html(tmp_path):
    figure = kappa_figure([write_run(tmp_path / name, log_lines({"llm": around(0, 0.3)})) for name in ("<b>x", "y")])
    assert figure.data[1].name == "&lt;b&gt;x"


def test_thin_keeps_spikes():
    steps = [float(step) for step in range(50_000)]
    values = [0.0] * 50_000
    values[12_345], values[40_001] = 7.0, -7.0
    thinned_steps, thinned = thin((steps, values))
    assert len(thinned) <= POINTS
    assert (max(thinned), min(thinned)) == (7.0, -7.0)
    assert thinned_steps == sorted(thinned_steps)
    assert thin((steps[:POINTS], values[:POINTS])) == (steps[:POINTS], values[:POINTS])


def test_trailing_mean():
    assert trailing_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_lines_stay_apart_beyond_the_palette():
    looks = {(colour(index), dash(index)) for index in range(4 * len(LIGHT))}
    assert len(looks) == 4 * len(LIGHT)


@pytest.mark.parametrize("value", [1.2, 18.7, 5e-7])
def test_values_all_alike_leave_a_tick_on_a_logarithmic_axis(tmp_path, value):
    """Between two neighbouring digits there is none."""
    log = [{"step": step, "drift/llm": value} for step in range(1, 4)]
    figure = figures.by_module(view_all([write_run(tmp_path / "a", log)]), "drift/", "drift")
    low, high = figure.layout.yaxis.range
    assert low < math.log10(value) < high
    assert any(low < math.log10(digit) + power < high for digit in range(1, 10) for power in range(-8, 3))
