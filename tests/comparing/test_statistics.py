"""Intervals and tests against hand-made numbers, closed forms and scipy's other ways to them."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from equipoise.comparing.statistics import difference, estimate, holm

#: Student's t, 97.5 %, as tables have it.
T2, T1 = 4.302653, 12.706205
floats = some.floats(-100, 100).map(lambda value: round(value, 3))


def test_a_hand_computed_interval():
    # Mean 0.7, deviations 0.1, 0, -0.1: s = 0.1, half width t(2) 0.1 / sqrt 3.
    found = estimate([0.6, 0.7, 0.8])
    assert found.mean == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - T2 * 0.1 / math.sqrt(3), rel=1e-6)
    assert found.high == pytest.approx(0.7 + T2 * 0.1 / math.sqrt(3), rel=1e-6)
    assert found.seeds == 3


def test_a_hand_computed_paired_test():
    # Differences 1, 2, 3: mean 2, s = 1, t = 2 sqrt 3 with 2 degrees of freedom. There p = 1 - t / sqrt(t^2 + 2).
    found = difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    t = 2 * math.sqrt(3)
    assert found.mean == pytest.approx(2)
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert (found.low, found.high) == pytest.approx((2 - T2 / math.sqrt(3), 2 + T2 / math.sqrt(3)), rel=1e-6)


def test_two_seeds_have_the_cauchy_distribution():
    # One degree of freedom: p = 1 - 2/pi arctan |t|.
    found = difference([3.0, 5.0], [2.0, 2.0])
    t = 2 / (math.sqrt(2) / math.sqrt(2))
    assert found.p == pytest.approx(1 - 2 / math.pi * math.atan(t))
    assert found.high == pytest.approx(2 + T1, rel=1e-6)


@given(some.lists(some.tuples(floats, floats), min_size=2, max_size=9))
def test_as_scipy_has_it(pairs):
    values, against = map(list, zip(*pairs))
    differences = [a - b for a, b in pairs]
    found = difference(values, against)
    if max(differences) - min(differences) < 1e-6:
        assert (found.low, found.high, found.p) == (None, None, None)
        return
    assert found.p == pytest.approx(stats.ttest_rel(values, against).pvalue)
    half = stats.t.ppf(0.975, len(pairs) - 1) * stdev(differences) / math.sqrt(len(pairs))
    assert found.low is not None
    assert (found.low, found.high) == pytest.approx((fmean(differences) - half, fmean(differences) + half), abs=1e-6)
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05)
    back = difference(against, values)
    assert (back.mean, back.p) == pytest.approx((-found.mean, found.p))


def test_a_ratio_is_what_its_logarithm_says():
    found = estimate([0.5, 2.0], ratio=True)
    assert found.mean == pytest.approx(1)
    assert found.low is not None
    assert found.low * found.high == pytest.approx(1)
    twice = difference([2.0, 4.0, 9.0], [1.0, 2.0, 4.0], ratio=True)
    assert twice.mean == pytest.approx((2 * 2 * 2.25) ** (1 / 3))
    assert twice.p == pytest.approx(stats.ttest_rel(np.log([2, 4, 9]), np.log([1, 2, 4])).pvalue)


def test_one_seed_has_a_mean_alone():
    assert (estimate([0.4]).mean, estimate([0.4]).low) == (0.4, None)
    found = difference([0.4], [0.1])
    assert found.mean == pytest.approx(0.3)
    assert (found.low, found.high, found.p) == (None, None, None)


def test_differences_that_vary_by_rounding_alone_are_no_certainty():
    # 0.65 - 0.6 and 0.7 - 0.65 differ in their last bit, and a t-test of that is sure of itself.
    with pytest.warns(RuntimeWarning, match="Precision loss"):
        assert stats.ttest_rel([0.65, 0.7], [0.6, 0.65]).pvalue < 1e-9
    found = difference([0.65, 0.7], [0.6, 0.65])
    assert found.mean == pytest.approx(0.05)
    assert (found.low, found.p) == (None, None)
    assert difference([0.0, 0.0], [0.0, 0.0]).p is None


def test_enormous_ratios_stay_finite():
    found = estimate([1e-90, 1e90], ratio=True)
    assert found.high is not None
    assert math.isfinite(found.high)


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, 0.5; what is no test does not count.
    assert holm([0.5, 0.01, None, 0.03, 0.02]) == pytest.approx([0.5, 0.04, None, 0.06, 0.06])
    # 0.015 x 2 = 0.03 would fall below 0.012 x 3 = 0.036.
    assert holm([0.012, 0.015, 0.9]) == pytest.approx([0.036, 0.036, 0.9])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(some.lists(some.floats(0, 1), max_size=8))
def test_holm_is_between_bonferroni_and_none(ps):
    found = holm(ps)
    for p, adjusted in zip(ps, found, strict=True):
        assert p <= adjusted <= min(1.0, max(p * len(ps), max(q for q in ps if q <= p) * len(ps)))
    in_order = [adjusted for _, adjusted in sorted(zip(ps, found, strict=True))]
    assert in_order == sorted(in_order)


def test_a_mean_difference_that_is_rounding_is_0() -> None:
    found = difference([0.1 + 0.2, 0.5, 0.7], [0.3, 0.6, 0.6])
    assert found.mean == 0.0
    assert found.low is not None
    assert found.low < 0 < found.high
    assert difference([1e-12, 3e-12], [2e-12, 5e-12]).mean == pytest.approx(-1.5e-12)
