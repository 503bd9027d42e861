"""The figures of a balance: contributions, difficulty, weights, score against data, methods."""

from __future__ import annotations

from math import floor, log10
from typing import Any

import plotly.graph_objects as go

from equipoise.report.balance.compare import Relative
from equipoise.report.balance.view import BalanceView
from equipoise.report.bars import Bars, bars
from equipoise.report.canvas import AXIS, LEGEND, dress, still
from equipoise.report.markup import short
from equipoise.report.palette import HARM_LIGHT, HELP_LIGHT, colour, dash
from equipoise.tasks.contribution import MINI, full_run
from equipoise.tasks.plan import alone

CELL = 42  # pixels
GREY = "#808890"  # shows on light and on dark
DIVERGING = [[0, HARM_LIGHT], [0.5, "#f6f7f8"], [1, HELP_LIGHT]]
SHOWN = {"contribution": "by contribution", "difficulty": "by difficulty", "cotbal": "final (cotbal)"}
"""The weights that are drawn; the two that contribution's are the mean of are in the table."""


def contributions(view: BalanceView) -> go.Figure:
    """C as a map of colours that end at -1 and 1: 1 is what a task's own data gives it.

    The diagonal, 1 by definition, has no colour, and neither have undefined columns.
    """
    tasks = list(view.tasks)
    places, names = list(range(len(tasks))), [short(view.called(task)) for task in tasks]
    values = [
        [
            None if taker in (giver, *view.undefined_contributions) else view.contributions.get(giver, {}).get(taker)
            for taker in tasks
        ]
        for giver in tasks
    ]
    # Names above the columns are upright where they would not fit side by side; over them are plotly's buttons.
    longest = max(map(len, names), default=0)
    above = 44 + (7 * (longest + 3) if longest > 7 else 16)
    figure = dress(go.Figure(), CELL * max(3, len(tasks)) + above + 10)
    size = 13 if len(tasks) <= 9 else 10
    figure.add_trace(
        go.Heatmap(
            x=places, y=places, z=[[None if v is None else float(f"{v:.6g}") for v in row] for row in values],
            text=[["" if v is None else _cell(v) for v in row] for row in values], texttemplate="%{text}",
            customdata=[[f"{giver} to {taker}" for taker in names] for giver in names],
            hovertemplate="%{customdata}: %{z:.4g}<extra></extra>", hoverongaps=False,
            colorscale=DIVERGING, zmin=-1, zmax=1, showscale=False, xgap=2, ygap=2, name="contributions",
            textfont={"size": size, "color": "#1f2428"}, meta={"scale": "diverging"},
        )
    )  # fmt: skip
    own = [place for place in places if tasks[place] not in view.undefined_contributions]
    figure.add_trace(
        go.Scatter(
            x=own, y=own, mode="text", text=["1"] * len(own), textfont={"size": size}, name="own data",
            hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
    ends = [-0.5, len(tasks) - 0.5]
    named: dict[str, Any] = {"tickvals": places, "ticktext": names}
    to = {**named, "ticktext": [f"to {name}" for name in names]}
    angle = -90 if longest > 7 else 0
    figure.update_xaxes(**AXIS, showgrid=False, side="top", tickangle=angle, range=ends, **to)
    figure.update_yaxes(
        **AXIS, showgrid=False, title_text="contribution of", title_standoff=14, range=ends[::-1], **named
    )
    figure.update_layout(hovermode="closest", margin={"t": above, "b": 10})
    figure.update_xaxes(ticks="", showline=False)
    figure.update_yaxes(ticks="", showline=False)
    for place in sorted(set(places).difference(own)):
        _mark_undefined(figure, place, len(tasks))
    return still(figure)


def difficulty(view: BalanceView) -> go.Figure:
    """D of each task as a bar."""
    values = [0.0 if task in view.undefined_difficulties else view.difficulty.get(task) for task in view.tasks]
    texts = [
        "undefined" if task in view.undefined_difficulties else "" if value is None else _cell(value)
        for task, value in zip(view.tasks, values, strict=True)
    ]
    return bars([view.called(task) for task in view.tasks], [Bars("difficulty", values, texts, 0)], "difficulty D")


def weights(view: BalanceView) -> go.Figure:
    """The final weights and the two that they are mixed of, with a line at 1."""
    series = []
    for paint, (kind, name) in enumerate(SHOWN.items()):
        values = [view.weights.get(kind, {}).get(task) for task in view.tasks]
        texts = ["" if value is None else f"{value:.2f}" for value in values]
        series.append(Bars(name, values, texts, (2, 4, 0)[paint]))
    return bars([view.called(task) for task in view.tasks], series, "weight", at=1.0)


def data_points(view: BalanceView) -> dict[str, tuple[float, float]]:
    """By task, the scores that its difficulty is made of: with its subset and with all of its data."""
    precise = view.settings.get("difficulty") == "precise"
    found = {}
    for task in view.tasks:
        runs = (alone(task, whole=False), alone(task)) if precise else (MINI, full_run(task))
        small, whole = (view.scores.get(run, {}).get(task) for run in runs)
        if small is not None and whole is not None:
            found[task] = small, whole
    return found


def score_by_data(view: BalanceView, fraction: float) -> go.Figure | None:
    """Each task's score against the share of its data, as 100 (1 + (V - V_all) / |V_all|) percent.

    All tasks end at 100, and how far one starts below is its difficulty, for negative scores too. None where no task
    has both scores.
    """
    shares = [float(f"{100 * fraction:.6g}"), 100.0]
    figure = dress(go.Figure(), 430)
    for place, task in enumerate(view.tasks):
        small, whole = data_points(view).get(task, (0.0, 0.0))
        if whole:
            values = [float(f"{100 * (1 + (value - whole) / abs(whole)):.6g}") for value in (small, whole)]
            figure.add_trace(
                go.Scatter(
                    x=shares, y=values, mode="lines+markers", name=short(view.called(task), LEGEND),
                    line={"color": colour(place), "width": 2.2, "dash": dash(place)},
                    marker={"color": colour(place), "size": 8}, hovertemplate="%{y:.3g} %",
                    meta={"colour": place},
                )
            )  # fmt: skip
    if not figure.data:
        return None
    ends = [log10(share) for share in shares]
    room = 0.06 * (ends[1] - ends[0]) or 0.1
    figure.update_xaxes(
        **AXIS, showgrid=False, type="log", title_text="share of the task's data (logarithmic)", tickvals=shares,
        ticktext=[f"{share:.3g} %" for share in shares], range=[ends[0] - room, ends[1] + room],
    )  # fmt: skip
    figure.update_yaxes(**AXIS, showgrid=True, title_text="score, % of that with all data", title_standoff=12)
    return figure.update_layout(hovermode="x")


def radar(view: BalanceView, found: Relative) -> tuple[go.Figure, float] | None:
    """The methods' scores by task, on an axis each, with a ring at 100.

    Returns:
        The figure and the value at its centre; None where fewer than three tasks have a score.
    """
    methods = [name for name in view.runs if name in found.values]
    tasks = list(dict.fromkeys(task for name in methods for task in found.values[name]))
    if len(tasks) < 3:
        return None
    values = [value for name in methods for value in found.values[name].values()]
    low, high = min([*values, 100.0]), max([*values, 100.0])
    step = _step(high - low)
    centre, edge = step * (floor(low / step) - 1), high + 0.08 * (high - low or step)
    half = 180 / len(tasks)
    angles = [half * (2 * place + 1) for place in range(len(tasks))]  # plotly writes no name at 0
    figure = dress(go.Figure(), 520)
    ring = [360 * place / 90 for place in range(91)]
    name = f"{found.baseline} = 100" if found.baseline else "best = 100"
    figure.add_trace(
        go.Scatterpolar(
            r=[100] * len(ring), theta=ring, mode="lines", name=name, hoverinfo="skip",
            line={"color": GREY, "width": 1.5, "dash": "dot"}, meta={"paint": "line"},
        )
    )  # fmt: skip
    for paint, method in enumerate(view.runs):
        own = found.values.get(method, {})
        if not own or method == found.baseline:
            continue
        closed = [*tasks, tasks[0]]
        figure.add_trace(
            go.Scatterpolar(
                r=[None if task not in own else float(f"{own[task]:.6g}") for task in closed],
                theta=[*angles, angles[0]], mode="lines+markers", name=short(method, LEGEND),
                customdata=[short(view.called(task)) for task in closed],
                hovertemplate="%{customdata}: %{r:.4g} %",
                line={"color": colour(paint), "width": 3 if method == view.final else 1.6},
                marker={"color": colour(paint), "size": 7 if method == view.final else 5},
                meta={"colour": paint, "run": paint},
            )
        )  # fmt: skip
    names = {"tickvals": angles, "ticktext": [short(view.called(task), 13) for task in tasks]}
    axis: dict[str, Any] = {key: AXIS[key] for key in ("gridcolor", "linecolor", "tickcolor")}
    figure.update_layout(
        hovermode="closest",
        showlegend=len(view.runs) < 2,  # the page has one for all
        margin={"l": 84, "r": 84, "t": 40, "b": 40},
        polar={
            "bgcolor": "#ffffff",
            "angularaxis": {"rotation": 90 + half, "direction": "clockwise", **axis, **names},
            "radialaxis": {
                "range": [centre, edge], "dtick": step, "tick0": 100, "ticksuffix": " %",
                "angle": 90 + half, "tickangle": 90 + half, **axis,
            },
        },
    )  # fmt: skip
    figure.update_layout(dragmode=False, modebar={"remove": ["zoom2d"]})
    return figure, centre


def _mark_undefined(figure: go.Figure, column: int, rows: int) -> None:
    figure.add_annotation(x=column, y=(rows - 1) / 2, text="undefined", textangle=-90, showarrow=False)
    line = {"color": GREY, "width": 1.2, "dash": "dot"}
    figure.add_shape(type="rect", x0=column - 0.46, x1=column + 0.46, y0=-0.46, y1=rows - 0.54, line=line)


def _step(span: float) -> float:
    """A round distance between rings, of which four or five cover the span; at least one percent."""
    if span <= 4:
        return 1.0
    power = 10.0 ** floor(log10(span / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / 4)


def _cell(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"
