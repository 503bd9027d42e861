"""What all figures share: empty panels in the report's look, a line in them, axes that fit.

A trace's `meta` carries its colour's number and its run's, by which the page's script repaints it for a dark page and
hides it when its run is switched off. Figures carry the light colours themselves, so that they stand alone too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log10
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from equipoise.report.markup import short
from equipoise.report.palette import colour, dash
from equipoise.report.view import Column

POINTS = 2000
"""Most points of one line. More would not be seen, and a run of 100,000 steps would weigh tens of megabytes."""

PANEL, MARGINS = 250, 90  # pixels
DECADES = 0.4  # least span of a logarithmic axis; from 1 to 2 it is 0.3
LEGEND = 60  # most letters of a name in a legend
AXIS: dict[str, Any] = {
    "gridcolor": "#e4e7ea", "linecolor": "#b8bfc6", "tickcolor": "#b8bfc6", "ticks": "outside", "showline": True,
    "zeroline": False, "automargin": True,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """How one line is drawn.

    Attributes:
        name: for legend and hover, as text.
        run: number of its run.
        paint: number of its colour.
        style: `faint` (single values under an average), `marked` (few values, each with a diamond) or `plain`.
        legend: whether the figure's own legend names it.
    """

    name: str
    run: int
    paint: int
    style: str = "plain"
    legend: bool = True


def panels(rows: int) -> go.Figure:
    """Empty panels, one under another, over the same steps and on the same scale."""
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.13 / rows if rows > 1 else 0)
    for row in range(2, rows + 1):
        figure.update_yaxes(matches="y", row=row, col=1)
    dress(figure, PANEL + 30 + MARGINS if rows == 1 else (PANEL - 30) * rows + MARGINS)
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(**AXIS, showgrid=False)
    figure.update_yaxes(**AXIS, showgrid=True, title_standoff=12)
    if rows > 1:  # the panels are low
        figure.update_yaxes(title_font={"size": 13})
    figure.update_xaxes(title_text="optimizer step", row=rows, col=1)
    return figure


def dress(figure: go.Figure, height: int) -> go.Figure:
    """Give a figure the report's look, in the colours of a light page."""
    return figure.update_layout(
        template=go.layout.Template(),
        height=height,
        margin={"l": 64, "r": 20, "t": 36, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1f2428"},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "itemsizing": "constant"},
        uirevision="kept",
    )


def still(figure: go.Figure) -> go.Figure:
    """Nothing to zoom into: a finger on the figure moves the page, or the frame that it is wider than."""
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    remove = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
    return figure.update_layout(dragmode=False, modebar={"remove": remove})


def add(figure: go.Figure, row: int, column: Column, line: Line) -> None:
    """Add one line to a panel; nothing where it has no points. plotly reads HTML in names: they are escaped."""
    steps, values = thin(column)
    if not steps:
        return
    marked = line.style == "marked"
    figure.add_trace(
        go.Scatter(
            x=[int(step) for step in steps],
            y=[float(f"{value:.6g}") for value in values],
            name=short(line.name, LEGEND),
            mode="lines+markers" if marked or len(steps) == 1 else "lines",
            line={
                "color": colour(line.paint),
                "width": 1 if line.style == "faint" else 2.2,
                "dash": "dot" if marked else dash(line.paint),
            },
            marker={"color": colour(line.paint), "size": 8, "symbol": "diamond" if marked else "circle"},
            opacity=0.35 if line.style == "faint" else 1.0,
            legendgroup=f"run {line.run}",
            showlegend=line.legend,
            hovertemplate="%{y:.3g}",
            meta={"colour": line.paint, "run": line.run},
        ),
        row=row,
        col=1,
    )


def fit(figure: go.Figure, include: Sequence[float] = (), lowest: float | None = None) -> None:
    """Set the range of linear vertical axes to all values drawn and some that must be seen.

    plotly's own `autorangeoptions.include` is not used: on logarithmic axes it cuts the values off.
    """
    _fit(figure, include, lowest, logarithmic=False)


def fit_logarithmic(
    figure: go.Figure, tickformat: str = "~e", include: Sequence[float] = (), lowest: float | None = None
) -> None:
    """The same for logarithmic axes, with ticks that have room: every digit, then 1-2-5, then whole decades.

    Args:
        tickformat: d3's.
        include: values that must be seen.
        lowest: where the axis ends, whatever lies below.
    """
    low, high = _fit(figure, include, lowest, logarithmic=True)
    if high - low < DECADES:  # between two neighbouring digits there would be no tick
        low, high = (low + high - DECADES) / 2, (low + high + DECADES) / 2
        figure.update_yaxes(range=[low, high])
    decades = high - low
    tick = "D1" if decades < 0.7 else "D2" if decades < 3.5 else max(1, round(decades / 8))
    figure.update_yaxes(type="log", tickformat=tickformat, dtick=tick)


def line_at(figure: go.Figure, value: float, row: int) -> None:
    """A horizontal line to compare with."""
    line = {"color": "#808890", "width": 1.2}
    figure.add_hline(y=value, row=row, col=1, line=line)  # pyright: ignore[reportArgumentType]


def band(figure: go.Figure, low: float, high: float, row: int) -> None:
    """A grey band behind the lines, of a grey that shows on light and dark."""
    look: dict[str, Any] = {"fillcolor": "rgba(128,128,128,0.13)", "line_width": 0, "layer": "below"}
    figure.add_hrect(y0=low, y1=high, row=row, col=1, **look)  # pyright: ignore[reportArgumentType]


def drawn(figure: go.Figure) -> list[float]:
    """Every value on the vertical axes."""
    traces: Any = figure.data
    return [value for trace in traces for value in trace.y]


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


def _fit(figure: go.Figure, include: Sequence[float], lowest: float | None, logarithmic: bool) -> tuple[float, float]:
    values = [*drawn(figure), *include]
    shown = [log10(value) if logarithmic else value for value in values if value > 0 or not logarithmic]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    if lowest is not None:
        low = min(max(low, log10(lowest) if logarithmic else lowest), high)
    room = 0.05 * (high - low) or 0.1
    low, high = low - room, high + room
    figure.update_yaxes(range=[low, high])
    return low, high
