"""One logged quantity of one method over its seeds: a mean, and how far the seeds lie apart. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from equipoise.report.view import Column

STRETCHES = 300
"""Stretches of steps that a long run is drawn in: two points each of the mean, the farthest of the band."""


@dataclass(frozen=True)
class Band:
    """A curve over steps.

    Attributes:
        steps: at which every seed has a value, thinned.
        mean: over seeds; geometric where the axis is logarithmic.
        low, high: the lowest and highest seed.
        seeds: how many.
    """

    steps: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


def band(columns: Sequence[Column], smoothed: int = 1, logarithmic: bool = False) -> Band | None:
    """Put the seeds' columns together.

    Args:
        columns: one for each seed that logged it.
        smoothed: logged steps of a trailing mean over each seed's own values; 1 for none.
        logarithmic: leave out what is not above 0, and average logarithms.

    Returns:
        None where there is no step at which all of them have a value.
    """
    seeds: list[dict[float, float]] = []
    for steps, values in columns:
        kept = [(step, value) for step, value in zip(steps, values, strict=True) if value > 0 or not logarithmic]
        own = [value for _, value in kept]
        if smoothed > 1:
            # Not by running sums: what they lose is more than a small value after a large one.
            own = [fmean(own[max(0, i + 1 - smoothed) : i + 1]) for i in range(len(own))]
        seeds.append(dict(zip([step for step, _ in kept], own, strict=True)))
    shared = sorted(set(seeds[0]).intersection(*seeds[1:])) if seeds else []
    if not shared:
        return None
    rows = [[own[step] for own in seeds] for step in shared]
    means = [math.exp(fmean(map(math.log, row))) if logarithmic else fmean(row) for row in rows]
    return _thinned(Band(shared, means, [min(row) for row in rows], [max(row) for row in rows], len(seeds)))


def _thinned(whole: Band) -> Band:
    """Of each stretch of steps the mean's lowest and highest point, with the band's farthest: no spike is lost."""
    count = len(whole.steps)
    if count <= 2 * STRETCHES:
        return whole
    size = -(-count // STRETCHES)
    kept: list[int] = []
    low: list[float] = []
    high: list[float] = []
    for start in range(0, count, size):
        stretch = range(start, min(start + size, count))
        ends = sorted({min(stretch, key=whole.mean.__getitem__), max(stretch, key=whole.mean.__getitem__)})
        kept += ends
        low += [min(whole.low[i] for i in stretch)] * len(ends)
        high += [max(whole.high[i] for i in stretch)] * len(ends)
    return Band([whole.steps[i] for i in kept], [whole.mean[i] for i in kept], low, high, whole.seeds)
