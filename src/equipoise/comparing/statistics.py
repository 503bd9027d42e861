"""What few seeds say: intervals of means, paired tests, and a correction for looking at many cells. Pure functions.

The t distribution stands for scipy's: seeds are few, and their results are taken to be normally distributed, which few
seeds cannot show. Where a quantity is a ratio (kappa, step time), its logarithm is what is averaged and tested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy import stats

LEVEL = 0.95
#: Differences that vary by less than this share of the values are taken not to vary, and a mean difference below it to
#: be 0: what is left is rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: geometric for a ratio.
        low, high: of its 95 % interval; None with one seed, or where the seeds do not differ.
        seeds: how many.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """A method against another, seed by seed.

    Attributes:
        mean: of the differences; for a ratio, the geometric mean of quotients.
        low, high: of its 95 % interval; None with one seed, or where the differences do not vary.
        p: two-sided, of the paired t-test; None likewise.
        seeds: that both have.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int


def estimate(values: Sequence[float], ratio: bool = False) -> Estimate:
    """Mean and interval of one or more values."""
    if ratio:
        logs = estimate([math.log(value) for value in values])
        return Estimate(math.exp(logs.mean), _exp(logs.low), _exp(logs.high), logs.seeds)
    low, high = _interval(values, max(map(abs, values)))
    return Estimate(fmean(values), low, high, len(values))


def difference(values: Sequence[float], against: Sequence[float], ratio: bool = False) -> Difference:
    """The paired t-test, and the interval that goes with it; p < 0.05 where the 95 % interval leaves out 0 (1)."""
    if ratio:
        logs = difference([math.log(value) for value in values], [math.log(value) for value in against])
        return Difference(math.exp(logs.mean), _exp(logs.low), _exp(logs.high), logs.p, logs.seeds)
    differences = [one - other for one, other in zip(values, against, strict=True)]
    size = max(map(abs, [*values, *against]))
    low, high = _interval(differences, size)
    varies = _varies(differences, size)
    p = float(stats.ttest_rel(values, against).pvalue) if varies else None
    mean = fmean(differences)
    return Difference(mean if abs(mean) > ROUNDING * size else 0.0, low, high, p, len(differences))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values: below 0.05 in the whole family with a chance of at most 5 % where nothing differs.

    The i-th smallest of m is multiplied by m - i + 1, and none falls below a smaller one's; None counts as no test.
    """
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def _interval(values: Sequence[float], size: float) -> tuple[float | None, float | None]:
    if not _varies(values, size):
        return None, None  # an interval of no width would promise too much
    found = stats.ttest_1samp(values, 0.0).confidence_interval(LEVEL)
    return float(found.low), float(found.high)


def _varies(values: Sequence[float], size: float) -> bool:
    return len(values) > 1 and max(values) - min(values) > ROUNDING * size


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(min(value, 700.0))  # a float ends at exp(709)
