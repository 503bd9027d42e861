"""One logged quantity of one method over its seeds: a mean, and how far the seeds lie apart. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from equipoise.report.view import Column

Values = NDArray[np.float64]
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
    seeds: list[tuple[Values, Values]] = []
    for column in columns:
        steps, first = np.unique(np.asarray(column[0], dtype=float), return_index=True)
        values = np.asarray(column[1], dtype=float)[first]
        kept = values > 0 if logarithmic else np.full(len(values), True)
        seeds.append((steps[kept], _trailing_mean(values[kept], smoothed)))
    if not seeds:
        return None
    shared = reduce(np.intersect1d, [steps for steps, _ in seeds])
    if not len(shared):
        return None
    rows = np.stack([values[np.searchsorted(steps, shared)] for steps, values in seeds])
    mean = np.exp(np.log(rows).mean(axis=0)) if logarithmic else rows.mean(axis=0)
    return _thinned(shared, mean, rows.min(axis=0), rows.max(axis=0), len(seeds))


def _trailing_mean(values: Values, size: int) -> Values:
    """Not by running sums: what they lose is more than a small value after a large one."""
    if size == 1 or not len(values):
        return values
    padded = np.concatenate([np.zeros(size - 1), values])
    counts = np.minimum(np.arange(1, len(values) + 1), size)
    sums: Values = np.lib.stride_tricks.sliding_window_view(padded, size).sum(axis=1)
    return sums / counts


def _thinned(steps: Values, mean: Values, low: Values, high: Values, seeds: int) -> Band:
    """Of each stretch of steps the mean's lowest and highest point, with the band's farthest: no spike is lost."""
    if len(steps) > 2 * STRETCHES:
        kept: list[int] = []
        for stretch in np.array_split(np.arange(len(steps)), STRETCHES):
            ends = sorted({int(stretch[mean[stretch].argmin()]), int(stretch[mean[stretch].argmax()])})
            kept += ends
            low[ends], high[ends] = low[stretch].min(), high[stretch].max()
        steps, mean, low, high = steps[kept], mean[kept], low[kept], high[kept]
    return Band(steps.tolist(), mean.tolist(), low.tolist(), high.tolist(), seeds)
