"""The report's figures, in plotly. One run: one panel, a colour a module. Several: a panel a module, a colour a run.

A trace's `meta` carries its colour's number and its run's, by which the page's script repaints it for a dark page and
hides it when its run is switched off. Figures carry the light colours themselves, so that they stand alone too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from math import exp
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from equipoise.modules.partition import LLM
from equipoise.report.palette import colour, dash
from equipoise.report.verdict import FAR
from equipoise.report.view import Column, RunView, view_all
from equipoise.training.run_directory import RunDirectory

POINTS = 2000
"""Most points of one line. More would not be seen, and a run of 100,000 steps would weigh tens of megabytes."""

SMOOTHED = 20
"""Logged steps in the trailing mean of the training loss."""

RATES = 1000
"""How many times below the highest learning rate its axis ends."""

PANEL, MARGINS = 250, 90
_GREY = "rgba(128,128,128,0.13)"


@dataclass(frozen=True)
class Curves:
    """What one panel shows of every run.

    Attributes:
        name: the panel's own name; the line's name where all panels share one.
        y_title: what the vertical axis says.
        key: the logged number, drawn thin where `smooth` stands over it.
        smooth: a logged average of it, drawn thick.
        colour: number of its colour where lines of one run share a panel.
    """

    name: str
    y_title: str
    key: str
    smooth: str | None = None
    colour: int = 0


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
        name = key.removeprefix("kappa").removeprefix("/") or LLM
        title = "kappa" if len(keys) < 2 else f"kappa, {name}"
        number = modules.index(name) if name in modules else 0
        curves.append(
            Curves(name if len(keys) > 1 else "kappa", title, key, key.replace("kappa", "kappa_average"), number)
        )
    figure = draw(runs, curves, log=True, unified_axis=True)
    _include(figure, 1.0)
    figure.update_yaxes(tickformat="~g")
    for row in range(1, _rows(runs, curves) + 1):
        figure.add_hrect(
            y0=exp(-FAR), y1=exp(FAR), row=row, col=1, fillcolor=_GREY, line_width=0, layer="below"  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
    _line_at(figure, 1.0, _rows(runs, curves))
    return figure


def by_module(runs: Sequence[RunView], prefix: str, quantity: str, log: bool = True) -> go.Figure:
    """One logged quantity, for every module that has it."""
    modules = modules_of(runs)
    logged = [name for name in modules if any(prefix + name in run.columns for run in runs)]
    titled = len(runs) > 1
    curves = [
        Curves(name, f"{quantity}, {name}" if titled else quantity, prefix + name, colour=modules.index(name))
        for name in logged
    ]
    return draw(runs, curves, log=log, unified_axis=True)


def learning_rate(runs: Sequence[RunView]) -> go.Figure:
    """Each module's learning rate. A decay ends near 0, which a logarithmic axis would follow for ever: it is cut."""
    figure = by_module(runs, "lr/", "learning rate")
    highest = max((max(run.column(key)[1]) for run in runs for key in run.columns if key.startswith("lr/")), default=0)
    if highest > 0:
        figure.update_yaxes(autorangeoptions={"clipmin": highest / RATES})
    return figure


def loss(runs: Sequence[RunView]) -> go.Figure:
    """Training loss, its trailing mean, and the validation loss where it was computed."""
    figure = _canvas(1)
    for index, run in enumerate(runs):
        steps, values = run.column("loss")
        label = (
            run.label if len(runs) > 1 else f"training, mean of the last {SMOOTHED}" if len(values) > SMOOTHED else "training"
        )
        if len(values) > SMOOTHED:
            _add(figure, 1, index, index, "training, each step", (steps, values), faint=True, legend=len(runs) == 1)
            values = trailing_mean(values, SMOOTHED)
        _add(figure, 1, index, index, label, (steps, values))
        marked = len(runs) == 1
        _add(figure, 1, index, index, "validation", run.column("validation_loss"), marked=True, legend=marked)
    figure.update_yaxes(title_text="loss (nats a token)")
    return _toggled_apart(figure, runs)


def convergence_factor(runs: Sequence[RunView]) -> go.Figure:
    """lambda of Theorem A.3 with the line that the paper says it stays above."""
    curves = [Curves("lambda", "lambda", "theory/lambda")]
    figure = draw(runs, curves, log=False)
    _include(figure, 1.0)
    _line_at(figure, 1.0, 1)
    return figure


def modules_of(runs: Sequence[RunView]) -> list[str]:
    """The modules of all runs, the LLM last."""
    names = dict.fromkeys(name for run in runs for name in run.modules)
    return sorted(names, key=lambda name: name == LLM)


def draw(runs: Sequence[RunView], curves: Sequence[Curves], log: bool, unified_axis: bool = False) -> go.Figure:
    """Lay curves out: one panel with a colour a curve for one run, a panel a curve with a colour a run for several."""
    several = len(runs) > 1
    figure = _canvas(_rows(runs, curves), unified_axis)
    for place, curve in enumerate(curves):
        row = place + 1 if several else 1
        for index, run in enumerate(runs):
            paint = index if several else curve.colour
            name = run.label if several else curve.name
            averaged = curve.smooth is not None and bool(run.column(curve.smooth)[1])
            faint_name = f"{name}, each measurement" if averaged else name
            legend = not several or (row == 1 and not averaged)
            _add(figure, row, index, paint, faint_name, run.column(curve.key), faint=averaged, legend=legend)
            if averaged and curve.smooth is not None:
                shown = name if several else f"{name}, window average"
                _add(figure, row, index, paint, shown, run.column(curve.smooth), legend=not several or row == 1)
        figure.update_yaxes(title_text=escape(curve.y_title), row=row, col=1)
    if log:
        figure.update_yaxes(type="log", tickformat="~e")
    return _toggled_apart(figure, runs)


def thin(column: Column, limit: int = POINTS) -> Column:
    """At most about `limit` points: of each stretch of steps the lowest and the highest value, so no spike is lost."""
    steps, values = column
    if len(steps) <= limit:
        return column
    size = -(-2 * len(steps) // limit)
    kept: list[int] = []
    for start in range(0, len(steps), size):
        stretch = range(start, min(start + size, len(steps)))
        kept += sorted({min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)})
    return [steps[i] for i in kept], [values[i] for i in kept]


def trailing_mean(values: Sequence[float], size: int) -> list[float]:
    """Mean of each value and the `size - 1` before it, of those there are."""
    sums = [0.0, *accumulate(values)]
    return [(sums[i + 1] - sums[max(0, i + 1 - size)]) / min(i + 1, size) for i in range(len(values))]


def _rows(runs: Sequence[RunView], curves: Sequence[Curves]) -> int:
    return max(1, len(curves)) if len(runs) > 1 else 1


def _canvas(rows: int, unified_axis: bool = False) -> go.Figure:
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, shared_yaxes="all" if unified_axis else False,
        vertical_spacing=0.22 / rows if rows > 1 else 0,
    )  # fmt: skip
    figure.update_layout(
        template=go.layout.Template(),
        height=PANEL * rows + MARGINS + (30 if rows == 1 else 0),
        margin={"l": 64, "r": 12, "t": 36, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1f2428"},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "itemsizing": "constant"},
        uirevision="kept",
    )
    axis: Mapping[str, Any] = {
        "gridcolor": "#e4e7ea", "linecolor": "#b8bfc6", "zeroline": False, "ticks": "outside", "tickcolor": "#b8bfc6",
        "showline": True, "automargin": True,
    }  # fmt: skip
    figure.update_xaxes(**axis, showgrid=False)
    figure.update_yaxes(**axis, showgrid=True)
    figure.update_xaxes(title_text="optimizer step", row=rows, col=1)
    return figure


def _add(
    figure: go.Figure, row: int, run: int, paint: int, name: str, column: Column,
    faint: bool = False, marked: bool = False, legend: bool = True,
) -> None:  # fmt: skip
    """Add one line; nothing where it has no points. Names come from files, and plotly reads HTML in them: escaped."""
    steps, values = thin(column)
    if not steps:
        return
    lone = len(steps) == 1
    figure.add_trace(
        go.Scatter(
            x=[int(step) for step in steps],
            y=[float(f"{value:.6g}") for value in values],
            name=escape(name, quote=False),
            mode="lines+markers" if marked or lone else "lines",
            line={"color": colour(paint), "width": 1 if faint else 2.2, "dash": "dot" if marked else dash(paint)},
            marker={"color": colour(paint), "size": 8, "symbol": "diamond" if marked else "circle"},
            opacity=0.33 if faint else 1.0,
            legendgroup=f"run {run}",
            showlegend=legend,
            hovertemplate="%{y:.3g}",
            meta={"colour": paint, "run": run},
        ),
        row=row,
        col=1,
    )


def _toggled_apart(figure: go.Figure, runs: Sequence[RunView]) -> go.Figure:
    """A click in the legend hides a whole run where there are several, one line where there is one."""
    return figure.update_traces(legendgroup=None) if len(runs) == 1 else figure


def _include(figure: go.Figure, value: float) -> None:
    figure.update_yaxes(autorangeoptions={"include": [value]})


def _line_at(figure: go.Figure, value: float, rows: int) -> None:
    for row in range(1, rows + 1):
        figure.add_hline(y=value, row=row, col=1, line={"color": "#808890", "width": 1.2})  # pyright: ignore[reportArgumentType]
