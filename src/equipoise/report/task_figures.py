"""Figures of a mixture's tasks. One run: one panel, a colour a task. Several: a panel a task, a colour a run."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from equipoise.report.bars import Bars, bars
from equipoise.report.canvas import Line, add, fit, fit_logarithmic, line_at, panels, trailing_mean
from equipoise.report.figures import SMOOTHED, TITLE, Curve, around_one, draw, rows_of, toggled_apart
from equipoise.report.markup import short
from equipoise.report.view import RunView

LOSS, WEIGHT, TOKENS, KAPPA = PREFIXES = "task_loss/", "task_weight/", "task_tokens/", "task_kappa/"
"""Of the keys that are logged by task."""

RANDOM = "rlw"
"""The weighter that draws its weights at random."""

LOSSES = 10_000
"""How many times below the highest smoothed loss its axis ends."""


def tasks_of(runs: Sequence[RunView]) -> list[str]:
    """The tasks that any of the runs logged, in the log's order."""
    prefixes = (WEIGHT, TOKENS, LOSS, KAPPA)  # the first two have every task in every line
    return list(
        dict.fromkeys(key.removeprefix(p) for p in prefixes for run in runs for key in run.columns if key.startswith(p))
    )


def constant_weights(run: RunView, tasks: Sequence[str]) -> dict[str, float] | None:
    """A run's weights where they never changed and were logged; None otherwise."""
    columns = {task: run.column(WEIGHT + task)[1] for task in tasks}
    if not any(columns.values()) or any(len(set(values)) > 1 for values in columns.values()):
        return None
    return {task: values[0] for task, values in columns.items() if values}


def total_tokens(run: RunView, tasks: Sequence[str]) -> dict[str, float]:
    """Supervised tokens of each task that logged any, over all logged steps."""
    return {task: sum(values) for task in tasks if (values := run.column(TOKENS + task)[1])}


def loss(runs: Sequence[RunView]) -> go.Figure:
    """Each task's mean loss a token, smoothed, on a logarithmic axis: tasks may lie decades apart.

    Single steps are drawn, thin, where a panel is one task's; those of several tasks would hide each other.
    """
    tasks, alone = tasks_of(runs), len(runs) == 1
    figure = panels(rows_of(runs, tasks))
    smooth: list[float] = []
    for place, task in enumerate(tasks):
        row = 1 if alone else place + 1
        for index, run in enumerate(runs):
            steps, values = run.column(LOSS + task)
            name, paint = (task, place) if alone else (run.label, index)
            if len(values) > SMOOTHED:
                if not alone:
                    add(figure, row, (steps, values), Line(f"{name}, each step", index, paint, "faint", legend=False))
                values = trailing_mean(values, SMOOTHED)
            smooth += values
            add(figure, row, (steps, values), Line(name, index, paint, legend=alone or place == 0))
        title = "loss (nats a token)" if alone else f"loss, {task}"
        figure.update_yaxes(title_text=short(title, TITLE), row=row, col=1)
    fit_logarithmic(figure, "~g", lowest=max([0.0, *smooth]) / LOSSES or None)
    return toggled_apart(figure, runs)


def weights(runs: Sequence[RunView]) -> go.Figure:
    """Each task's weight over time, with a line at 1, the weight of a task in the ordinary loss."""
    curves = [Curve(task, WEIGHT + task, paint=place) for place, task in enumerate(tasks_of(runs))]
    figure = draw(runs, curves, "weight")
    fit(figure, include=(0.0, 1.0))
    for row in range(1, rows_of(runs, curves) + 1):
        line_at(figure, 1.0, row)
    return figure


def weights_by_run(runs: Sequence[RunView]) -> go.Figure:
    """The same, but a panel a run and a colour a task: whom a weighter favours, and when.

    Weights that are drawn at random at each step are smoothed: all their lines together are one carpet.
    """
    tasks = tasks_of(runs)
    figure = panels(len(runs))
    for row, run in enumerate(runs, start=1):
        for place, task in enumerate(tasks):
            steps, values = run.column(WEIGHT + task)
            shown = trailing_mean(values, SMOOTHED) if run.label == RANDOM else values
            add(figure, row, (steps, shown), Line(task, place, place, legend=row == 1))
        figure.update_yaxes(title_text=short(f"weight, {run.label}", TITLE), row=row, col=1)
        line_at(figure, 1.0, row)
    fit(figure, include=(0.0, 1.0))
    # The colours are the tasks': switching a run off would take a task out of every panel.
    figure.for_each_trace(lambda trace: trace.update(meta={"colour": trace.meta["colour"]}))
    return figure


def tokens(runs: Sequence[RunView]) -> go.Figure:
    """Each task's share of all supervised tokens, in percent."""
    tasks, series = tasks_of(runs), []
    for index, run in enumerate(runs):
        counted = total_tokens(run, tasks)
        total = sum(counted.values())
        shares = [100 * counted[task] / total if total > 0 and task in counted else None for task in tasks]
        texts = ["" if share is None else f"{share:.3g} %" for share in shares]
        paint = list(range(len(tasks))) if len(runs) == 1 else index
        series.append(Bars(run.label, shares, texts, paint, index))
    return bars(tasks, series, "share of supervised tokens (%)")


def kappa(runs: Sequence[RunView]) -> go.Figure:
    """The balance coefficient of each task that logged one, as the figure of the whole run's."""
    curves = [
        Curve(task, KAPPA + task, paint=place)
        for place, task in enumerate(tasks_of(runs))
        if any(KAPPA + task in run.columns for run in runs)
    ]
    return around_one(draw(runs, curves, "kappa"), rows_of(runs, curves))
