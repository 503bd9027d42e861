"""Figures of `experiments.commit`: how losses, kappas, gradients and the paper's H go on, over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from equipoise.modules.partition import LLM
from equipoise.report.canvas import AXIS, dress
from equipoise.report.palette import colour
from experiments.commit_plan import CELLS, ENCODER, EXPERIMENTS
from experiments.commit_results import SMOOTH, Results
from experiments.records import FACTOR
from scripts.figures import photograph

Curves = Mapping[str, Sequence[Sequence[float]]]
"""By method, a curve a seed, a value a step; nan where there is none."""


@dataclass(frozen=True)
class Row:
    """A quantity that is drawn, a panel a cell.

    Attributes:
        title: of the axis.
        key: of `metrics.jsonl`; `{encoder}` stands for the module that is not the LLM.
        smooth: steps that are averaged.
    """

    title: str
    key: str
    smooth: int = SMOOTH


LOSS = Row("training loss", "loss")
KAPPA = Row("kappa", "kappa")
LLM_FACTOR = Row("the LLM's rate, times the base", f"{FACTOR}{LLM}", smooth=1)
THEORY = (
    Row("H of the encoder", "theory/H/{encoder}"),
    Row("H of the LLM", f"theory/H/{LLM}"),
    KAPPA,
    Row("‖G‖ / ‖θ‖, encoder", "grad_norm_relative/{encoder}"),
    Row("‖G‖ / ‖θ‖, LLM", f"grad_norm_relative/{LLM}"),
    LOSS,
)


def curves(results: Results, experiment: str, cell: str, row: Row, methods: Sequence[str] | None) -> Curves:
    """One quantity of one comparison, of the methods that have it."""
    key = row.key.format(encoder=ENCODER[CELLS[cell].stack])
    found: dict[str, list[list[float]]] = {}
    for method, runs in results.runs(experiment, cell).items():
        if methods is None or method in methods:
            for run in runs.values():
                lines = results.log(experiment, cell, run)
                found.setdefault(method, []).append([line.get(key, math.nan) for line in lines])
    return {method: found[method] for method in found if np.isfinite(np.concatenate(found[method])).any()}


def smoothed(values: Sequence[float], steps: int) -> list[float]:
    """The mean over the last steps that have a value; nan where none has."""
    windows = (values[max(0, end - steps) : end] for end in range(1, len(values) + 1))
    known = ([value for value in window if math.isfinite(value)] for window in windows)
    return [sum(window) / len(window) if window else math.nan for window in known]


def grid(
    results: Results,
    experiment: str,
    cells: Sequence[str],
    rows: Sequence[Row],
    methods: Sequence[str] | None,
    wide: int,
) -> go.Figure:
    """Rows of quantities by columns of cells, or one quantity's cells `wide` in a row.

    A line is the geometric mean over seeds and over the last steps, its band from the smallest seed to the largest.
    """
    wide = min(wide, len(cells))
    count = len(rows) if len(rows) > 1 else math.ceil(len(cells) / wide)
    columns = len(cells) if len(rows) > 1 else wide
    figure = make_subplots(
        rows=count, cols=columns, subplot_titles=list(cells), horizontal_spacing=0.07, vertical_spacing=0.25 / count
    )
    order = list(methods or EXPERIMENTS[experiment].methods)
    named: set[str] = set()
    for r, quantity in enumerate(rows):
        for c, cell in enumerate(cells):
            place = {"row": r + 1, "col": c + 1} if len(rows) > 1 else {"row": c // wide + 1, "col": c % wide + 1}
            for method, found in curves(results, experiment, cell, quantity, methods).items():
                _draw(figure, place, method, found, quantity, colour(order.index(method)), method not in named)
                named.add(method)
            figure.update_yaxes(**AXIS, type="log", exponentformat="e", **place)
            figure.update_xaxes(**AXIS, **place)
            if place["col"] == 1:
                figure.update_yaxes(title_text=quantity.title, **place)
            if place["row"] == count:
                figure.update_xaxes(title_text="optimizer step", **place)
    dress(figure, 260 * count + 60)
    return figure.update_layout(legend={"y": 1.0 + 0.12 / count, "yanchor": "bottom"})


def _draw(
    figure: go.Figure,
    place: Mapping[str, int],
    method: str,
    found: Sequence[Sequence[float]],
    row: Row,
    paint: str,
    named: bool,
) -> None:
    length = min(map(len, found))
    with np.errstate(invalid="ignore", divide="ignore"):
        logs_SN = np.log([np.where(np.array(one[:length]) > 0, one[:length], np.nan) for one in found])
    logs_SN = np.array([smoothed(one.tolist(), row.smooth) for one in logs_SN])
    mean_N, values_SN = np.exp(logs_SN.mean(axis=0)), np.exp(logs_SN)
    steps = list(range(1, length + 1))
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": method}
    if len(found) > 1:
        figure.add_scatter(x=steps, y=values_SN.min(axis=0), **band, **place)
        shade = f"rgba({','.join(str(int(paint[i : i + 2], 16)) for i in (1, 3, 5))},0.12)"
        figure.add_scatter(x=steps, y=values_SN.max(axis=0), fill="tonexty", fillcolor=shade, **band, **place)
    line = {"color": paint, "width": 1.8}
    figure.add_scatter(
        x=steps, y=mean_N, mode="lines", name=method, line=line, legendgroup=method, showlegend=named, **place
    )


def draw(results: Results, folder: Path) -> None:
    """All figures of which there are runs, as PNG."""
    there = {name: [cell for cell in one.cells if results.runs(name, cell)] for name, one in EXPERIMENTS.items()}
    if cells := there["table1"]:
        main = [name for name in EXPERIMENTS["table1"].methods if "paper" not in name]
        tall = 60 + 280 * math.ceil(len(cells) / 3)
        for name, row in (("loss", LOSS), ("kappa", KAPPA)):
            figure = grid(results, "table1", cells, [row], main, 3)
            photograph(figure, folder / f"experiments-{name}.png", 1100, tall, 2)
    if cells := there["paper-form"]:
        figure = grid(results, "paper-form", cells, (LOSS, KAPPA, LLM_FACTOR), None, len(cells))
        photograph(figure, folder / "experiments-paper-form.png", 1000, 860, 2)
    if cells := there["curves"]:
        faster = [name for name in EXPERIMENTS["curves"].methods if "commit" not in name]
        figure = grid(results, "curves", cells, THEORY, faster, 2)
        photograph(figure, folder / "experiments-one-side-faster.png", 1000, 1500, 2)
    if cells := there["backbones"]:
        figure = grid(results, "backbones", cells, (LOSS, KAPPA), None, len(cells))
        photograph(figure, folder / "experiments-backbones.png", 1000, 600, 2)
