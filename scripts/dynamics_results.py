"""What the runs of scripts/dynamics.py measured: where each settles, as Markdown and as figures.

Nothing here trains; it reads the files that `dynamics.py run` wrote.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from equipoise.modules.partition import LLM
from equipoise.report.canvas import AXIS, dress, fit_logarithmic
from equipoise.report.palette import colour

Run = dict[str, Any]
RATIOS = ("1:1", "10:1", "1:10")
CONTROLLERS = ("paper", "servo")
WINDOWS = (1, 3, 5, 10, 20, 50)
SWING, MOVE, AT_BOUND = 3.0, 1.5, 0.1
GREY = "#808890"


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, without an exponent where that is readable."""
    return f"{float(f'{value:.{digits}g}'):g}" if value is not None else ""


@dataclass(frozen=True)
class Spread:
    """Median and the 10 % and 90 % quantiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None of no values."""
        found = list(values)
        return cls(*map(float, np.quantile(found, (0.1, 0.5, 0.9)))) if found else None

    def __str__(self) -> str:
        return f"{number(self.median, 2)} ({number(self.low, 2)} to {number(self.high, 2)})"


@dataclass(frozen=True)
class Settled:
    """The last third of a run.

    Attributes:
        kappa: of its single measurements; None where there is none.
        equal_kappa: median of kappa / (LLM's factor / projector's factor)^2, which is r in this run where drift is
            quadratic in the learning rate.
        factors: LLM's factor / projector's.
        loss: mean; None where one is no number.
        verdict: `diverged` (a loss of the run is no number), `at the bound` (a factor is the smallest allowed in a
            tenth of the steps), `swings` (the 90 % quantile of `factors` is over 3 times the 10 % one), `moves` (their
            median is over 1.5 times that of the third before, or under 1/1.5 of it) or `settles`; of a run that does
            not act, `constant`.
    """

    kappa: Spread | None
    equal_kappa: float | None
    factors: Spread
    loss: float | None
    verdict: str


def load(folder: Path) -> list[Run]:
    """The runs of a folder, in the order of their names."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    for run, file in zip(runs, sorted(folder.glob("*.json")), strict=True):
        if not isinstance(run, dict) or run.get("name") != file.stem:
            sys.exit(f"{file}: no run of scripts/dynamics.py; name a folder that holds nothing else")
    return runs


def relative_factors(run: Run) -> list[float]:
    """The LLM's factor over the projector's, at each step."""
    return [
        factors[LLM] / other
        for factors in (record["factors"] for record in run["steps"])
        for name, other in factors.items()
        if name != LLM
    ]


def settled(run: Run) -> Settled:
    """Where a run is in its last third, and what it does there."""
    steps, ratios = run["steps"], relative_factors(run)
    third = max(1, len(steps) // 3)
    # `lookback` measures the step before.
    shift = 1 if run["settings"]["estimator"] == "lookback" else 0
    late = range(len(steps) - third, len(steps))
    measured = [number for number in late if steps[number]["kappa"] is not None and number >= shift]
    equal = Spread.of(steps[number]["kappa"] / ratios[number - shift] ** 2 for number in measured)
    losses = [record["loss"] for record in steps[-third:]]
    factors = Spread.of(ratios[-third:])
    assert factors is not None
    return Settled(
        kappa=Spread.of(steps[number]["kappa"] for number in measured),
        equal_kappa=equal.median if equal is not None else None,
        factors=factors,
        loss=sum(losses) / len(losses) if None not in losses else None,
        verdict=_verdict(run, ratios, third, factors),
    )


def _verdict(run: Run, ratios: Sequence[float], third: int, factors: Spread) -> str:
    steps, lowest = run["steps"], run["settings"]["min_factor"] * (1 + 1e-6)
    if any(record["loss"] is None for record in steps):
        return "diverged"
    if run["controller"] == "constant":
        return "constant"
    at_bound = [min(record["factors"].values()) <= lowest for record in steps[-third:]]
    if sum(at_bound) >= AT_BOUND * third:
        return "at the bound"
    if factors.high > SWING * factors.low:
        return "swings"
    before = Spread.of(ratios[-2 * third : -third])
    if before is not None and abs(math.log(factors.median / before.median)) > math.log(MOVE):
        return "moves"
    return "settles"


def equal_kappas(runs: Sequence[Run]) -> dict[str, float]:
    """r by ratio of the base rates: the median kappa of the `constant` runs, in their last third."""
    found = {run["ratio"]: settled(run).kappa for run in runs if run["controller"] == "constant"}
    return {ratio: kappa.median for ratio, kappa in found.items() if kappa is not None}


def select(runs: Sequence[Run], controller: str, ratio: str) -> list[Run]:
    """Those runs, by window."""
    found = [run for run in runs if run["controller"] == controller and run["ratio"] == ratio]
    return sorted(found, key=lambda run: run["window"] or 0)


# ---------------------------------------------------------------------- Markdown


def tables(runs: Sequence[Run]) -> str:
    """What was measured, a table for `constant` and one a controller; all figures are those of the last third."""
    settings = runs[0]["settings"]
    measurements = max(sum(record["kappa"] is not None for record in run["steps"]) for run in runs)
    every = f" each {settings['every']}th step" if settings["estimator"] == "sampled" and settings["every"] > 1 else ""
    parts = [
        f"{settings['steps']} steps of {settings['batch_size']} samples, base rate {settings['learning_rate']:g}, "
        f"`{settings['estimator']}`{every} (up to {measurements} measurements a run), average `{settings['average']}`, "
        f"seed {settings['seed']}. In brackets: 10 % and 90 % quantiles.",
        _constant_table(runs),
    ]
    for controller in CONTROLLERS:
        if any(run["controller"] == controller for run in runs):
            parts.append(_controller_table(runs, controller))
    return "\n\n".join(parts)


def _constant_table(runs: Sequence[Run]) -> str:
    lines = ["| `constant`, projector : LLM | kappa, so r | cube root of r | loss |", "| --- | --- | --- | --- |"]
    for ratio in RATIOS:
        for run in select(runs, "constant", ratio):
            now = settled(run)
            root = predicted("paper", now.kappa.median if now.kappa is not None else None)
            lines.append(f"| {ratio} | {now.kappa or 'none'} | {number(root, 2)} | {number(now.loss)} |")
    return "\n".join(lines)


def _controller_table(runs: Sequence[Run], controller: str) -> str:
    lines = [
        f"| `{controller}`, projector : LLM | N | kappa | predicted | r in this run | LLM's factor / projector's "
        "| loss | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    expected = equal_kappas(runs)
    for ratio in RATIOS:
        for run in select(runs, controller, ratio):
            now = settled(run)
            goal = predicted(controller, expected.get(ratio))
            lines.append(
                f"| {ratio} | {run['window']} | {now.kappa or 'none'} | {number(goal, 2)} "
                f"| {number(now.equal_kappa, 2)} | {now.factors} | {number(now.loss)} | {now.verdict} |"
            )
    return "\n".join(lines)


def predicted(controller: str, equal_kappa: float | None) -> float | None:
    """Where kappa should settle: at the cube root of r (`paper`), at 1 (`servo`)."""
    if controller == "servo":
        return 1.0
    return equal_kappa ** (1 / 3) if equal_kappa is not None else None


# ---------------------------------------------------------------------- figures


def kappa_figure(runs: Sequence[Run]) -> go.Figure:
    """kappa in the last third of each run, by window: a panel a ratio, a colour a controller, lines where it should be.

    Whiskers are the 10 % and 90 % quantiles; a hollow marker stands for a run whose verdict is not `settles`.
    """
    figure = _panels(1, [f"projector : LLM = {ratio}" for ratio in RATIOS])
    expected = equal_kappas(runs)
    places, ends = range(len(WINDOWS)), []
    for column, ratio in enumerate(RATIOS, 1):
        first = column == 1
        if ratio in expected:
            name = "r: kappa of equal factors"
            _level(figure, 1, column, places, expected[ratio], GREY, "dot", name, first)
        for paint, controller in enumerate(CONTROLLERS):
            goal = predicted(controller, expected.get(ratio))
            if goal is not None:
                name = "kappa = 1" if controller == "servo" else "cube root of r"
                _level(figure, 1, column, places, goal, colour(paint), "dash", name, first)
            ends += [goal] if goal is not None else []
            drawn = [(run["window"], settled(run)) for run in select(runs, controller, ratio)]
            found = [(WINDOWS.index(n), now.kappa, now.verdict) for n, now in drawn if now.kappa is not None]
            ends += [end for _, kappa, _ in found for end in (kappa.low, kappa.high)]
            for settles in (True, False):
                chosen = [(place, kappa) for place, kappa, verdict in found if (verdict == "settles") == settles]
                name = controller if settles else f"{controller}, not settled"
                legend = name not in [trace.name for trace in figure.data]
                if chosen:
                    figure.add_trace(_whiskers(chosen, paint, name, settles, legend), row=1, col=column)
    fit_logarithmic(figure, "~g", include=ends)
    figure.update_xaxes(tickvals=list(places), ticktext=list(map(str, WINDOWS)), title_text="window N")
    figure.update_yaxes(title_text="kappa, last third", row=1, col=1)
    return figure


def _whiskers(chosen: Sequence[tuple[int, Spread]], paint: int, name: str, filled: bool, legend: bool) -> go.Scatter:
    """Medians with their quantiles, beside each other at a window by `paint`."""
    symbol, edge = "circle" if filled else "circle-open", {"width": 2, "color": colour(paint)}
    above = [kappa.high - kappa.median for _, kappa in chosen]
    below = [kappa.median - kappa.low for _, kappa in chosen]
    return go.Scatter(
        x=[place + 0.24 * paint - 0.12 for place, _ in chosen],
        y=[kappa.median for _, kappa in chosen],
        error_y={"array": above, "arrayminus": below, "thickness": 1.4, "width": 3},
        mode="markers",
        marker={"color": colour(paint), "size": 9, "symbol": symbol, "line": edge},
        name=name,
        legendgroup=name,
        legendrank=10 * paint + (0 if filled else 1),
        showlegend=legend,
    )


def factors_figure(runs: Sequence[Run]) -> go.Figure:
    """The LLM's factor over the projector's along each run: a row a controller, a column a ratio, a line a window.

    Dashed: where it should settle. At kappa = r f^2 the paper's f = 1 / kappa is r^(-1/3), the servo's r^(-1/2).
    """
    titles = [f"{controller}, projector : LLM = {ratio}" for controller in CONTROLLERS for ratio in RATIOS]
    figure = _panels(len(CONTROLLERS), titles)
    expected = equal_kappas(runs)
    shades = sample_colorscale("Viridis", [0.88 * place / (len(WINDOWS) - 1) for place in range(len(WINDOWS))])
    shown: set[str] = set()
    for row, controller in enumerate(CONTROLLERS, 1):
        for column, ratio in enumerate(RATIOS, 1):
            found = select(runs, controller, ratio)
            for run in found:
                steps, name = [record["step"] for record in run["steps"]], f"N = {run['window']}"
                line = {"color": shades[WINDOWS.index(run["window"])], "width": 1 + 0.25 * WINDOWS.index(run["window"])}
                trace = go.Scatter(
                    x=steps, y=relative_factors(run), mode="lines", line=line, name=name, legendgroup=name,
                    legendrank=run["window"], showlegend=name not in shown,
                )  # fmt: skip
                shown.add(name)
                figure.add_trace(trace, row=row, col=column)
            if found and ratio in expected:
                goal = expected[ratio] ** (-1 / 2 if controller == "servo" else -1 / 3)
                ends = (found[0]["steps"][0]["step"], found[0]["steps"][-1]["step"])
                legend = "predicted" not in shown
                _level(figure, row, column, ends, goal, "#1f2428", "dash", "predicted", legend)
                shown.add("predicted")
    fit_logarithmic(figure, "~g")
    figure.update_xaxes(title_text="optimizer step", row=len(CONTROLLERS))
    figure.update_yaxes(title_text="LLM's factor / projector's", col=1)
    return figure


def _panels(rows: int, titles: Sequence[str]) -> go.Figure:
    figure = make_subplots(
        rows=rows, cols=len(RATIOS), shared_yaxes="all", subplot_titles=titles, horizontal_spacing=0.03,
        vertical_spacing=0.16,
    )  # fmt: skip
    dress(figure, 320 * rows)
    figure.update_annotations(font_size=13)
    figure.update_layout(margin={"l": 64, "r": 20, "t": 70, "b": 52}, legend={"y": 1.0 + 0.13 / rows})
    figure.update_xaxes(**AXIS, showgrid=False)
    return figure.update_yaxes(**AXIS, showgrid=True)


def _level(
    figure: go.Figure, row: int, column: int, places: Sequence[int], value: float, paint: str, dash: str, name: str,
    legend: bool,
) -> None:  # fmt: skip
    """A horizontal line that the legend names."""
    line = {"color": paint, "width": 1.4, "dash": dash}
    ends = [places[0] - 0.4, places[-1] + 0.4] if len(places) > 2 else list(places)
    trace = go.Scatter(
        x=ends, y=[value, value], mode="lines", line=line, name=name, legendgroup=name, legendrank=2000,
        showlegend=legend,
    )  # fmt: skip
    figure.add_trace(trace, row=row, col=column)
