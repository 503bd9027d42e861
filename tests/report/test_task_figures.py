"""Tasks in training: what the figures draw, and what the page says beside them."""

import json
import math

import pytest
from _html_page import Page
from _synthetic_balance import TASKS, task_lines
from _synthetic_runs import around, log_lines, write_run

from equipoise.report import build_report, task_figures
from equipoise.report.canvas import drawn, trailing_mean
from equipoise.report.figures import SMOOTHED
from equipoise.report.palette import LIGHT
from equipoise.report.task_figures import RANDOM, constant_weights, tasks_of, total_tokens
from equipoise.report.view import view_all


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / name, task_lines(TASKS, name, kappa=True)) for name in ("dwa", RANDOM)]


def page(tmp_path, *runs) -> Page:
    return Page(build_report(runs, tmp_path / "report.html").read_text(encoding="utf-8"))


def test_one_run_has_a_colour_a_task(runs):
    views = view_all(runs[:1])
    for figure in (task_figures.loss(views), task_figures.weights(views), task_figures.kappa(views)):
        names = [trace.name for trace in figure.data if trace.showlegend and "each" not in trace.name]
        assert names == list(TASKS)
        assert {trace.line.color for trace in figure.data} == set(LIGHT[: len(TASKS)])
        assert "yaxis2" not in figure.layout.to_plotly_json()
    (share,) = task_figures.tokens(views).data
    assert share.marker.color == tuple(LIGHT[: len(TASKS)])


def test_several_runs_have_a_panel_a_task(runs):
    views = view_all(runs)
    figure = task_figures.loss(views)
    titles = [figure.layout[f"yaxis{place or ''}"].title.text for place in ("", 2, 3, 4)]
    assert titles == [f"loss, {task}" for task in TASKS]
    assert {trace.line.color for trace in figure.data} == set(LIGHT[:2])
    assert [trace.name for trace in figure.data if trace.showlegend] == ["dwa", RANDOM]


def test_loss_is_smoothed_over_the_steps_that_held_the_task(runs):
    (view,) = view_all(runs[:1])
    steps, values = view.column("task_loss/caption")
    assert 0 < len(steps) < 60
    trace = task_figures.loss([view]).data[1]
    assert list(trace.x) == steps
    assert list(trace.y) == pytest.approx(trailing_mean(values, SMOOTHED), rel=1e-5)


def test_every_smoothed_loss_is_in_range_and_a_loss_of_zero_breaks_nothing(tmp_path):
    lines = [{"step": step, "task_loss/a": 0.0, "task_loss/b": 10.0 ** -(step % 3)} for step in range(1, 6)]
    figure = task_figures.loss(view_all([write_run(tmp_path / "a", lines)]))
    low, high = figure.layout.yaxis.range
    assert all(low < math.log10(value) < high for value in drawn(figure) if value > 0)


def test_the_axis_does_not_follow_a_loss_that_vanishes(tmp_path):
    lines = [{"step": step, "task_loss/a": 1.0, "task_loss/b": 1e-30} for step in range(1, 6)]
    low, _ = task_figures.loss(view_all([write_run(tmp_path / "a", lines)])).layout.yaxis.range
    assert low == pytest.approx(-math.log10(task_figures.LOSSES), abs=0.3)


def test_shares_of_tokens(runs):
    (view,) = view_all(runs[:1])
    assert total_tokens(view, TASKS) == {"vqa": 480, "caption": 960, "region": 1440, "box": 1920}
    (share,) = task_figures.tokens([view]).data
    assert list(share.x) == pytest.approx([10, 20, 30, 40])
    assert share.text[3] == "40 %"


def test_shares_of_a_log_without_a_token(tmp_path):
    lines = [{"step": 1, "task_tokens/a": 0, "task_tokens/b": 0}]
    (share,) = task_figures.tokens(view_all([write_run(tmp_path / "a", lines)])).data
    assert list(share.x) == [None, None]


def test_constant_weights_are_told_from_moving_ones(tmp_path, runs):
    steady = write_run(tmp_path / "ew", task_lines(TASKS))
    views = view_all([steady, *runs, write_run(tmp_path / "old", log_lines({"llm": around(0, 0.3)}))])
    assert [constant_weights(view, TASKS) for view in views] == [dict.fromkeys(TASKS, 1.0), None, None, None]


def test_weights_by_run_smooth_what_is_drawn_at_random(runs):
    views = view_all(runs)
    figure = task_figures.weights_by_run(views)
    given, random = figure.data[0], figure.data[len(TASKS)]
    assert list(given.y) == pytest.approx(views[0].column("task_weight/vqa")[1], rel=1e-5)
    assert list(random.y) == pytest.approx(trailing_mean(views[1].column("task_weight/vqa")[1], SMOOTHED), rel=1e-5)
    assert all("run" not in trace.meta for trace in figure.data)
    assert [trace.name for trace in figure.data if trace.showlegend] == list(TASKS)


def test_the_section_of_a_run(tmp_path, runs):
    found = page(tmp_path, runs[0])
    assert [chart["id"] for chart in found.charts if chart["id"].startswith("task")] == [
        "task-loss",
        "task-weight",
        "task-tokens",
        "task-kappa",
    ]
    assert "Tasks in training" in found.text
    assert "median κ" in found.text
    assert "1,920" in found.text


def test_constant_weights_are_a_table_and_no_figure(tmp_path):
    found = page(tmp_path, write_run(tmp_path / "ew", task_lines(TASKS)))
    assert "weights did not change" in found.text
    assert not [chart for chart in found.charts if chart["id"] in ("task-weight", "task-kappa")]
    assert "median κ" not in found.text


def test_moving_and_constant_weights_share_a_figure(tmp_path, runs):
    found = page(tmp_path, runs[0], write_run(tmp_path / "ew", task_lines(TASKS)))
    (chart,) = [chart for chart in found.charts if chart["id"] == "task-weight"]
    assert len(chart["data"]) == 2 * len(TASKS)
    assert chart["layout"]["showlegend"] is False


def test_one_task_alone(tmp_path):
    found = page(tmp_path, write_run(tmp_path / "one", task_lines(["vqa"])))
    assert "One task, vqa: nothing to tell apart." in found.text
    assert not [chart for chart in found.charts if chart["id"].startswith("task")]


def test_a_log_without_tasks(tmp_path):
    found = page(tmp_path, write_run(tmp_path / "old", log_lines({"llm": around(0, 0.3)})))
    assert "No run logged its tasks apart." in found.text


def test_runs_of_unlike_mixtures(tmp_path):
    views = view_all([write_run(tmp_path / name, task_lines(tasks)) for name, tasks in (("a", "xy"), ("b", "yz"))])
    assert tasks_of(views) == ["x", "y", "z"]
    first, second = task_figures.tokens(views).data
    assert (first.x[2], second.x[0]) == (None, None)
    assert (
        "b"
        in page(
            tmp_path, *[write_run(tmp_path / "again" / n, task_lines(t)) for n, t in (("a", "xy"), ("b", "z"))]
        ).text
    )


def test_names_cannot_steer_the_page(tmp_path):
    evil = ["<script>alert(1)</script>", '"><img src=x>', "abc\u202egnp.", "x" * 200]
    found = page(tmp_path, write_run(tmp_path / "a", task_lines(evil, "dwa", kappa=True)))
    assert len(found.all("script")) == 3
    assert not found.all("img")
    assert "<" not in found.scripts[0]
    assert "\u202e" not in found.text + json.dumps(found.charts, ensure_ascii=False)
    assert "abc\\u202egnp." in found.text
    names = [trace["name"] for chart in found.charts for trace in chart["data"]]
    ticks = [tick for chart in found.charts for tick in chart["layout"]["yaxis"].get("ticktext", [])]
    assert all("<" not in name and len(name) < 100 for name in names + ticks)
