"""Horizontal bars with a name each: for quantities of tasks, whose names may be long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from equipoise.report.canvas import AXIS, LEGEND, MARGINS, dress, still
from equipoise.report.markup import short
from equipoise.report.palette import colour

THICKNESS, GAP = 15, 14  # pixels


@dataclass(frozen=True)
class Bars:
    """One series.

    Attributes:
        name: for the legend, as text.
        values: a bar each; None draws none.
        texts: at their ends.
        paint: number of its colour, or one for each bar.
        run: number of the run that it belongs to; None where it belongs to none.
    """

    name: str
    values: Sequence[float | None]
    texts: Sequence[str]
    paint: int | Sequence[int]
    run: int | None = None


def bars(names: Sequence[str], series: Sequence[Bars], quantity: str, at: float | None = None) -> go.Figure:
    """Draw series side by side, the first name on top.

    Args:
        names: of the bars of each series.
        series: one or more.
        quantity: title of the axis.
        at: where a line stands to compare with.
    """
    thickness = THICKNESS if len(series) > 1 else THICKNESS + 7
    figure = dress(go.Figure(), round(len(names) * (thickness * len(series) + GAP)) + MARGINS)
    for one in series:
        paints = [one.paint] * len(names) if isinstance(one.paint, int) else list(one.paint)
        figure.add_trace(
            go.Bar(
                x=[None if value is None else float(f"{value:.6g}") for value in one.values],
                y=list(range(len(names))),
                orientation="h",
                name=short(one.name, LEGEND),
                text=list(one.texts),
                customdata=[short(name) for name in names],
                hovertemplate="%{customdata}: %{text}",
                textposition="outside",
                cliponaxis=False,
                marker={"color": [colour(paint) for paint in paints]},
                showlegend=len(series) > 1,
                meta={"colour": paints, **({} if one.run is None else {"run": one.run})},
            )
        )
    figure.update_layout(bargap=GAP / (thickness * len(series) + GAP), bargroupgap=0.08, hovermode="closest")
    figure.update_xaxes(**AXIS, showgrid=True, title_text=quantity, range=_range(series, at))
    _name_rows(figure, names)
    if any(value is not None and value < 0 for one in series for value in one.values):
        _line(figure, 0.0)
    if at is not None:
        _line(figure, at)
    return still(figure)


def _range(series: Sequence[Bars], at: float | None) -> list[float]:
    values = [value for one in series for value in one.values if value is not None]
    low, high = min([0.0, *values]), max([0.0, *values, *([] if at is None else [at])])
    room = 0.14 * (high - low) or 1.0  # for the texts at the ends
    return [low - room if low < 0 else 0.0, high + room]


def _name_rows(figure: go.Figure, names: Sequence[str]) -> None:
    """Names by position: as categories, plotly would read some as numbers or dates."""
    named: dict[str, Any] = {"tickvals": list(range(len(names))), "ticktext": [short(name) for name in names]}
    ends = [len(names) - 0.5, -0.5]
    figure.update_yaxes(**AXIS, showgrid=False, range=ends, **named)
    figure.update_yaxes(ticks="")


def _line(figure: go.Figure, value: float) -> None:
    line = {"color": "#808890", "width": 1.2}
    figure.add_vline(x=value, line=line, layer="below")
