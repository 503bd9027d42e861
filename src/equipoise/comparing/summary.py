"""A comparison in numbers: every quantity of every method over seeds, and against the baseline. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from equipoise.comparing.measured import Measured
from equipoise.comparing.methods import STL
from equipoise.comparing.statistics import Difference, Estimate, difference, estimate, holm
from equipoise.errors import DataError
from equipoise.metrics.deltas import deltas

#: By seed.
Values = Mapping[int, float]


@dataclass(frozen=True)
class Quantity:
    """What is compared.

    Attributes:
        name: of it.
        task: whose score it is; None where it is no score.
        better: which direction is; None where neither is.
        ratio: whether its logarithm is averaged and tested.
        tested: whether a p-value says anything.
    """

    name: str
    task: str | None = None
    better: Literal["higher", "lower"] | None = "higher"
    ratio: bool = False
    tested: bool = True

    @property
    def title(self) -> str:
        """Task and metric, in words."""
        name = self.name.replace("_", " ")
        return name if self.task is None else f"{self.task}: {name}"


LOSS = Quantity("validation loss", better="lower")
KAPPA = Quantity("mean kappa", better=None, ratio=True)
SPREAD = Quantity("std of log kappa", better=None)
TIME = Quantity("step time", better=None, ratio=True, tested=False)
DELTA_I, DELTA_E = Quantity("Delta I %"), Quantity("Delta E %", better="lower")
_READ: tuple[tuple[Quantity, Callable[[Measured], float | None]], ...] = (
    (LOSS, lambda run: run.validation_loss),
    (KAPPA, lambda run: run.kappa or None),  # what underflows to 0 has no logarithm
    (SPREAD, lambda run: run.std_log_kappa),
    (TIME, lambda run: run.step_time),
)


@dataclass(frozen=True)
class Cell:
    """One quantity of one method.

    Attributes:
        values: of the seeds that have been run.
        estimate: their mean.
        difference: to the baseline; None of the baseline itself, and where no seed has both.
        p_holm: its p, corrected for all cells of its table.
    """

    method: str
    quantity: Quantity
    values: Values
    estimate: Estimate
    difference: Difference | None = None
    p_holm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        against = self.difference
        return {
            "method": self.method,
            **({"task": self.quantity.task} if self.quantity.task is not None else {}),
            "quantity": self.quantity.name,
            "mean": self.estimate.mean,
            "interval": _pair(self.estimate.low, self.estimate.high),
            "seeds": self.estimate.seeds,
            "difference": None
            if against is None
            else {
                "kind": "ratio" if self.quantity.ratio else "difference",
                "mean": against.mean,
                "interval": _pair(against.low, against.high),
                "p": against.p,
                "p_holm": self.p_holm,
                "seeds": against.seeds,
            },
        }


@dataclass(frozen=True)
class Summary:
    """All of it.

    Attributes:
        baseline: the method that the others are compared with.
        methods: those that have been run with a seed or more, in the plan's order.
        scores: by task and test set; p is corrected over all of them.
        training: loss, kappa and time; likewise.
        deltas: Delta I and Delta E; empty where they are not defined.
        undefined: why they are not; empty where they are.
        single: what the deltas are against: `stl`, or the baseline where that has not been run.
        left_out: tasks that it has no score of; the deltas are without them.
        seeds: that each method has been run with.
    """

    baseline: str
    methods: tuple[str, ...]
    scores: tuple[Cell, ...]
    training: tuple[Cell, ...]
    deltas: tuple[Cell, ...]
    undefined: str = ""
    single: str = ""
    left_out: tuple[str, ...] = ()
    seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def cell(self, method: str, quantity: Quantity) -> Cell | None:
        """One cell; None where nothing is known."""
        cells = (*self.scores, *self.training, *self.deltas)
        return next((cell for cell in cells if cell.method == method and cell.quantity == quantity), None)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        tables = {"scores": self.scores, "training": self.training, "deltas": self.deltas}
        return {name: [cell.as_dict() for cell in cells] for name, cells in tables.items()}


def summarise(measured: Sequence[Measured], methods: Sequence[str], baseline: str) -> Summary:
    """Sum up what has been run so far.

    Args:
        measured: finished runs.
        methods: the plan's order.
        baseline: one of them.
    """
    by_method = {method: {run.seed: run for run in measured if run.method == method} for method in methods}
    by_method = {method: runs for method, runs in by_method.items() if runs}
    sets = dict.fromkeys((task, name) for run in measured for task in run.scores for name in run.scores[task])
    scores = [
        (Quantity(name, task), {m: _values(runs, _score_of(task, name)) for m, runs in by_method.items()})
        for task, name in sets
    ]
    training = [(quantity, {m: _values(runs, read) for m, runs in by_method.items()}) for quantity, read in _READ]
    single = STL if STL in by_method else baseline
    alone = {task for run in by_method.get(single, {}).values() for task in run.scores}
    left_out = tuple(task for task in dict.fromkeys(task for task, _ in sets) if task not in alone)
    found, undefined = _deltas(by_method, single, alone, left_out)
    cells = (_cells(scores, baseline), _cells(training, baseline), _cells(found, None))
    seeds = {method: tuple(runs) for method, runs in by_method.items()}
    return Summary(baseline, tuple(by_method), *cells, undefined, single, left_out, seeds)


def _cells(table: Sequence[tuple[Quantity, Mapping[str, Values]]], baseline: str | None) -> tuple[Cell, ...]:
    cells = []
    for quantity, by_method in table:
        against = by_method.get(baseline, {}) if baseline is not None else {}
        for method, values in by_method.items():
            if not values:
                continue
            both = [seed for seed in values if seed in against] if method != baseline else []
            pair = [values[seed] for seed in both], [against[seed] for seed in both]
            found = difference(*pair, quantity.ratio) if both else None
            if found is not None and not quantity.tested:
                found = replace(found, p=None)
            cells.append(Cell(method, quantity, values, estimate(list(values.values()), quantity.ratio), found))
    corrected = holm([cell.difference.p if cell.difference is not None else None for cell in cells])
    return tuple(replace(cell, p_holm=p) for cell, p in zip(cells, corrected, strict=True))


def _deltas(
    by_method: Mapping[str, Mapping[int, Measured]], baseline: str, tasks: Collection[str], left_out: Sequence[str]
) -> tuple[list[tuple[Quantity, dict[str, Values]]], str]:
    """Delta I and Delta E of each method in each seed that the baseline has too, or why there are none.

    A task that is tested and never trained has no model of its own, so they are over those the baseline has scores of.
    """
    if len(tasks) + len(left_out) < 2 or baseline not in by_method:
        return [], ""
    if len(tasks) < 2:
        return [], f"{baseline} has no score of {', '.join(left_out)}, and two tasks or more are needed"
    better: dict[str, dict[int, float]] = {}
    worse: dict[str, dict[int, float]] = {}
    for method, runs in by_method.items():
        for seed in runs if method != baseline else ():
            if seed in by_method[baseline]:
                scores = {task: own for task, own in runs[seed].scores.items() if task in tasks}
                pair = {baseline: by_method[baseline][seed].scores, method: scores}
                try:
                    found = deltas(pair, baseline)[method]
                except DataError as error:
                    return [], f"seed {seed}: {error}"
                better.setdefault(method, {})[seed] = found.delta_i
                worse.setdefault(method, {})[seed] = found.delta_e
    return [(DELTA_I, dict(better)), (DELTA_E, dict(worse))], ""


def _values(runs: Mapping[int, Measured], read: Callable[[Measured], float | None]) -> Values:
    known = {seed: read(run) for seed, run in runs.items()}
    return {seed: value for seed, value in known.items() if value is not None and math.isfinite(value)}


def _score_of(task: str, name: str) -> Callable[[Measured], float | None]:
    return lambda run: run.scores.get(task, {}).get(name)


def _pair(low: float | None, high: float | None) -> list[float] | None:
    return None if low is None or high is None else [low, high]
