"""Methods against each other, task by task. Pure functions on what a balance's view holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from equipoise.report.balance.view import BalanceView, Scores
from equipoise.tasks.plan import STL

EW = "ew"

FARTHEST = 1e9
"""Percent beyond which a score is in no proportion to its baseline, nor in any to the others; inf is one of them."""


@dataclass(frozen=True)
class Relative:
    """Every method's test scores in percent of others'.

    Attributes:
        baseline: the method they are relative to; None for the best method, task by task.
        values: by method, by task; the mean over a task's test sets.
        undefined: tasks that are left out, because the baseline's score is 0.
    """

    baseline: str | None
    values: Scores
    undefined: tuple[str, ...]


def relative(view: BalanceView) -> Relative:
    """Scores relative to one model per task where there is one, else to equal weights, else to the best of each.

    A value is 100 (1 + (V - B) / |B|): 100 V / B for a positive baseline B, and for a negative one still higher where
    the score V is better. With one model per task it is 100 plus the task's part in Delta I.
    """
    baseline = next((name for name in (STL, EW) if name in view.results), None)
    against = view.results[baseline] if baseline else _best(view.results)
    values: dict[str, dict[str, float]] = {}
    for method, found in view.results.items():
        values[method] = {}
        for task, bases in against.items():
            known = {name: base for name, base in bases.items() if base and name in found.get(task, {})}
            if known:
                value = 100 * fmean(1 + (found[task][name] - base) / abs(base) for name, base in known.items())
                if abs(value) < FARTHEST:
                    values[method][task] = value
    undefined = tuple(task for task, bases in against.items() if not any(bases.values()))
    return Relative(baseline, values, undefined)


def wins(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[int, int, int]:
    """On how many of the tasks of both the one is better, worse and equal."""
    both = [(one[task], other[task]) for task in one if task in other]
    better, worse = sum(a > b for a, b in both), sum(a < b for a, b in both)
    return better, worse, len(both) - better - worse


def _best(results: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for tasks in results.values():
        for task, sets in tasks.items():
            for name, value in sets.items():
                of_task = best.setdefault(task, {})
                of_task[name] = max(value, of_task.get(name, value))
    return best
