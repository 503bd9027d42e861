"""A comparison's figures: curves with a band over seeds, and quantities with their intervals and every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log10
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from equipoise.comparing.summary import Quantity, Summary
from equipoise.report.canvas import AXIS, LEGEND, dress, fit, fit_logarithmic, line_at, panels, still
from equipoise.report.canvas import band as grey_band
from equipoise.report.comparison.bands import Band
from equipoise.report.figures import TITLE
from equipoise.report.markup import short
from equipoise.report.palette import colour, dash
from equipoise.report.verdict import FAR

MOST = 8
"""Methods that one figure draws; the curves of more could not be told apart."""
ROW, PANEL, TOP = 26, 72, 40  # pixels
Curves = Sequence[tuple[str, Mapping[str, Band]]]
"""A panel each: its title, and a band for each method."""


def curves(found: Curves, methods: Sequence[str]) -> go.Figure:
    """A panel a quantity, a colour a method: the mean over seeds, and a band from the lowest seed to the highest."""
    figure = panels(len(found))
    for row, (title, by_method) in enumerate(found, start=1):
        for place, method in enumerate(methods[:MOST]):
            if method in by_method:
                _add(figure, row, by_method[method], method, place, 0.16 if len(by_method) < 5 else 0.1)
        figure.update_yaxes(title_text=short(title, TITLE), row=row, col=1)
    return figure


def kappa(found: Curves, methods: Sequence[str]) -> go.Figure:
    """The same on a logarithmic axis, with the band that is called balanced."""
    figure = curves(found, methods)
    fit_logarithmic(figure, "~g", include=(exp(-FAR), exp(FAR)))
    for row in range(1, len(found) + 1):
        grey_band(figure, exp(-FAR), exp(FAR), row)
        line_at(figure, 1.0, row)
    return figure


def logarithmic(found: Curves, methods: Sequence[str], decades: float = 4) -> go.Figure:
    """The same; what lies far below the highest value is cut off."""
    figure = curves(found, methods)
    highest = max((value for _, one in found for band in one.values() for value in band.high), default=0.0)
    fit_logarithmic(figure, lowest=highest / 10**decades or None)
    return figure


def linear(found: Curves, methods: Sequence[str], include: Sequence[float] = ()) -> go.Figure:
    """The same on a linear axis."""
    figure = curves(found, methods)
    fit(figure, include)
    return figure


def mark_validation(figure: go.Figure, by_method: Mapping[str, Band], methods: Sequence[str]) -> go.Figure:
    """Add diamonds where a validation loss was computed during training."""
    for place, method in enumerate(methods[:MOST]):
        if method in by_method:
            one = by_method[method]
            figure.add_trace(
                go.Scatter(
                    x=[int(step) for step in one.steps], y=_rounded(one.mean), mode="markers",
                    name=short(f"{method}, validation", LEGEND), hovertemplate="%{y:.3g}", showlegend=False,
                    marker={"color": colour(place), "size": 8, "symbol": "diamond"},
                    meta={"colour": place, "run": place},
                ),
                row=1, col=1,
            )  # fmt: skip
    return figure


def quantities(summary: Summary, methods: Sequence[str], shown: Sequence[Quantity]) -> go.Figure:
    """A panel a quantity with an axis of its own, a row a method: every seed, the mean and its 95 % interval."""
    rows = [method for method in methods if method in summary.methods]
    height = ROW * len(rows) + PANEL
    figure = make_subplots(rows=len(shown), cols=1, vertical_spacing=PANEL / (height * len(shown) + TOP))
    dress(figure, height * len(shown) + TOP)
    for panel, quantity in enumerate(shown, start=1):
        for row, method in enumerate(rows):
            _add_quantity(figure, panel, row, summary, quantity, method, methods.index(method))
        against = summary.cell(summary.baseline, quantity)
        if against is not None:
            line: dict[str, Any] = {"color": "#808890", "width": 1.2, "dash": "dot"}
            figure.add_vline(x=against.estimate.mean, line=line, layer="below", row=panel, col=1)
        scale = _axis(summary, quantity)
        figure.update_xaxes(
            title_text=short(quantity.title, 40), title_standoff=4, title_font={"size": 13}, **scale, row=panel, col=1
        )
    figure.update_xaxes(**AXIS, showgrid=True)
    names: dict[str, Any] = {"tickvals": list(range(len(rows))), "ticktext": [short(method) for method in rows]}
    figure.update_yaxes(**AXIS, showgrid=False, range=[len(rows) - 0.5, -0.5], **names)
    figure.update_yaxes(ticks="")
    figure.update_layout(hovermode="closest", showlegend=False)
    return still(figure)


def _add(figure: go.Figure, row: int, one: Band, method: str, place: int, opacity: float) -> None:
    steps = [int(step) for step in one.steps]
    shared: dict[str, Any] = {"legendgroup": f"method {place}", "meta": {"colour": place, "run": place}}
    if one.seeds > 1:
        figure.add_trace(
            go.Scatter(
                x=[*steps, *reversed(steps)], y=[*_rounded(one.high), *reversed(_rounded(one.low))],
                fill="toself", fillcolor=colour(place), opacity=opacity, mode="lines",
                line={"color": colour(place), "width": 0}, hoverinfo="skip", showlegend=False,
                name=short(f"{method}, lowest to highest seed", LEGEND), **shared,
            ),
            row=row, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=steps, y=_rounded(one.mean), name=short(method, LEGEND), hovertemplate="%{y:.3g}",
            mode="lines" if len(steps) > 1 else "lines+markers",
            line={"color": colour(place), "width": 2.2, "dash": dash(place)}, marker={"color": colour(place)},
            showlegend=False, **shared,
        ),
        row=row, col=1,
    )  # fmt: skip


def _add_quantity(
    figure: go.Figure, panel: int, row: int, summary: Summary, quantity: Quantity, method: str, paint: int
) -> None:
    cell = summary.cell(method, quantity)
    if cell is None:
        return
    shared: dict[str, Any] = {"meta": {"colour": paint, "run": paint}, "showlegend": False}
    seeds = list(cell.values)
    figure.add_trace(
        go.Scatter(
            x=_rounded([cell.values[seed] for seed in seeds]), y=[row + 0.22] * len(seeds), mode="markers",
            customdata=[f"{short(method)}, seed {seed}" for seed in seeds],
            hovertemplate="%{customdata}: %{x:.4g}<extra></extra>", name=short(method, LEGEND), opacity=0.55,
            marker={"color": colour(paint), "size": 5}, **shared,
        ),
        row=panel, col=1,
    )  # fmt: skip
    found = cell.estimate
    error: dict[str, Any] = {}
    if found.low is not None and found.high is not None:
        above, below = found.high - found.mean, found.mean - found.low
        error = {"type": "data", "symmetric": False, "array": _rounded([above]), "arrayminus": _rounded([below])}
        error |= {"thickness": 2, "width": 5}
    figure.add_trace(
        go.Scatter(
            x=_rounded([found.mean]), y=[row - 0.08], mode="markers", name=short(method, LEGEND),
            customdata=[short(method)], hovertemplate="%{customdata}, mean: %{x:.4g}<extra></extra>",
            marker={"color": colour(paint), "size": 10, "symbol": "diamond"}, error_x=error or None, **shared,
        ),
        row=panel, col=1,
    )  # fmt: skip


def _axis(summary: Summary, quantity: Quantity) -> dict[str, Any]:
    """An axis over every seed, and over the intervals as far as these leave the seeds apart: of two, they are wide."""
    cells = [cell for method in summary.methods if (cell := summary.cell(method, quantity)) is not None]
    seeds = [value for cell in cells for value in cell.values.values()]
    ends = [end for cell in cells for end in (cell.estimate.low, cell.estimate.high) if end is not None]
    if quantity.ratio:
        seeds, ends = [log10(value) for value in seeds], [log10(end) for end in ends if end > 0]
    if not seeds:
        return {}
    span = max(seeds) - min(seeds) or 0.1 * (abs(seeds[0]) or 1.0)
    low = max(min([*ends, *seeds]), min(seeds) - span)
    high = min(max([*ends, *seeds]), max(seeds) + span)
    room = 0.06 * (high - low) or span
    low, high = low - room, high + room
    if not quantity.ratio:
        return {"range": [low, high]}
    tick = "D1" if high - low < 0.35 else "D2" if high - low < 3.5 else 1
    return {"type": "log", "range": [low, high], "dtick": tick, "tickformat": "~g"}


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
