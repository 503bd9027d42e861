"""The report's figures. One run: one panel, a colour a module. Several: a panel a module, a colour a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import plotly.graph_objects as go

from equipoise.modules.partition import LLM
from equipoise.report.canvas import Line, add, band, drawn, fit, fit_logarithmic, line_at, panels, trailing_mean
from equipoise.report.markup import short
from equipoise.report.verdict import FAR
from equipoise.report.view import RunView, view_all
from equipoise.training.run_directory import RunDirectory

SMOOTHED = 10
"""Logged steps in the trailing mean of the training loss."""

TITLE = 30
"""Most letters of a panel's title."""

RATES = 1000
"""How many times below the highest learning rate its axis ends."""


@dataclass(frozen=True)
class Curve:
    """A logged number that is drawn for every run.

    Attributes:
        name: of what it belongs to: a module, as a rule.
        key: of the log; drawn thin where `average` stands over it.
        average: of the log; drawn thick.
        paint: number of its colour where the curves of one run share a panel.
    """

    name: str
    key: str
    average: str | None = None
    paint: int = 0


def kappa_figure(runs: Sequence[RunDirectory]) -> go.Figure:
    """The balance coefficient of one or several runs, on its own: for a README or a notebook.

    Thin: each measurement. Thick: the average over its window, which the schedule acts on. The band around 1 is what
    `diagnose` calls balanced.

    Raises:
        RunError: there is no run.
    """
    return kappa(view_all(runs))


def kappa(runs: Sequence[RunView]) -> go.Figure:
    """kappa and its window average, a logarithmic axis, a line at 1 and the band of balance around it."""
    modules = modules_of(runs)
    keys = dict.fromkeys(key for run in runs for key in run.columns if key == "kappa" or key.startswith("kappa/"))
    curves = []
    for key in keys:
        module = key.removeprefix("kappa").removeprefix("/") or LLM
        paint = modules.index(module) if module in modules else 0
        name = module if len(keys) > 1 else "kappa"
        curves.append(Curve(name, key, key.replace("kappa", "kappa_average", 1), paint))
    return around_one(draw(runs, curves, "kappa"), rows_of(runs, curves))


def around_one(figure: go.Figure, rows: int) -> go.Figure:
    """Give panels of kappa a logarithmic axis, a line at 1 and the band of balance around it."""
    fit_logarithmic(figure, "~g", include=(exp(-FAR), exp(FAR)))
    for row in range(1, rows + 1):
        band(figure, exp(-FAR), exp(FAR), row)
        line_at(figure, 1.0, row)
    return figure


def by_module(runs: Sequence[RunView], prefix: str, quantity: str) -> go.Figure:
    """One logged quantity, for every module that has it, on a logarithmic axis."""
    modules = modules_of(runs)
    curves = [
        Curve(name, prefix + name, paint=place)
        for place, name in enumerate(modules)
        if any(prefix + name in run.columns for run in runs)
    ]
    figure = draw(runs, curves, quantity)
    fit_logarithmic(figure)
    return figure


def learning_rate(runs: Sequence[RunView]) -> go.Figure:
    """Each module's learning rate. A decay ends near 0, which a logarithmic axis would follow for ever: it is cut."""
    figure = by_module(runs, "lr/", "learning rate")
    fit_logarithmic(figure, lowest=max([0.0, *drawn(figure)]) / RATES or None)
    return figure


def loss(runs: Sequence[RunView]) -> go.Figure:
    """Training loss, its trailing mean, and the validation loss where it was computed."""
    figure = panels(1)
    alone = len(runs) == 1
    for index, run in enumerate(runs):
        steps, values = run.column("loss")
        name = "training" if alone else run.label
        if len(values) > SMOOTHED:
            add(figure, 1, (steps, values), Line("training, each step", index, index, "faint", legend=alone))
            name = f"training, mean of {SMOOTHED}" if alone else run.label
            values = trailing_mean(values, SMOOTHED)
        add(figure, 1, (steps, values), Line(name, index, index))
        validation = Line("validation" if alone else f"{run.label}, validation", index, index, "marked", legend=alone)
        add(figure, 1, run.column("validation_loss"), validation)
    figure.update_yaxes(title_text="loss (nats a token)")
    return toggled_apart(figure, runs)


def convergence_factor(runs: Sequence[RunView]) -> go.Figure:
    """lambda of Theorem A.3 with the line that the paper says it stays above."""
    figure = draw(runs, [Curve("lambda", "theory/lambda")], "lambda")
    fit(figure, include=(1.0,))
    line_at(figure, 1.0, 1)
    return figure


def modules_of(runs: Sequence[RunView]) -> list[str]:
    """The modules of all runs, the LLM last."""
    names = dict.fromkeys(name for run in runs for name in run.modules)
    return sorted(names, key=lambda name: name == LLM)


def draw(runs: Sequence[RunView], curves: Sequence[Curve], quantity: str) -> go.Figure:
    """Lay curves out: one panel with a colour a curve for one run, a panel a curve with a colour a run for several."""
    rows, alone = rows_of(runs, curves), len(runs) == 1
    figure = panels(rows)
    for place, curve in enumerate(curves):
        row = 1 if alone else place + 1
        for index, run in enumerate(runs):
            name, paint = (curve.name, curve.paint) if alone else (run.label, index)
            averages = run.column(curve.average) if curve.average else ([], [])
            first = alone or place == 0
            if averages[0]:
                faint = Line(f"{name}, each measurement", index, paint, "faint", legend=alone and len(curves) == 1)
                add(figure, row, run.column(curve.key), faint)
                add(
                    figure,
                    row,
                    averages,
                    Line(f"{name}, window average" if alone else name, index, paint, legend=first),
                )
            else:
                add(figure, row, run.column(curve.key), Line(name, index, paint, legend=first))
        title = quantity if rows == 1 else f"{quantity}, {curve.name}"
        figure.update_yaxes(title_text=short(title, TITLE), row=row, col=1)
    return toggled_apart(figure, runs)


def rows_of(runs: Sequence[RunView], curves: Sequence[object]) -> int:
    """How many panels `draw` makes of so many curves."""
    return max(1, len(curves)) if len(runs) > 1 else 1


def toggled_apart(figure: go.Figure, runs: Sequence[RunView]) -> go.Figure:
    """A click in the legend hides a whole run where there are several, one line where there is one."""
    return figure.update_traces(legendgroup=None) if len(runs) == 1 else figure
