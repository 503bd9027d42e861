"""Seeds put together, by hand."""

from __future__ import annotations

import pytest

from equipoise.report.comparison.bands import band


def test_the_mean_and_the_farthest_seeds_at_shared_steps():
    found = band([([1, 2, 3], [1.0, 2.0, 3.0]), ([2, 3, 4], [4.0, 5.0, 6.0])])
    assert found is not None
    assert list(found.steps) == [2, 3]
    assert list(found.mean) == [3.0, 4.0]
    assert (list(found.low), list(found.high)) == ([2.0, 3.0], [4.0, 5.0])
    assert found.seeds == 2


def test_on_a_logarithmic_axis_the_mean_is_geometric_and_zeros_are_left_out():
    found = band([([1, 2, 3], [0.0, 1.0, 0.1]), ([1, 2, 3], [1.0, 100.0, 10.0])], logarithmic=True)
    assert found is not None
    assert list(found.steps) == [2, 3]
    assert list(found.mean) == pytest.approx([10.0, 1.0])


def test_smoothing_is_of_each_seed():
    found = band([([1, 2, 3], [1.0, 3.0, 5.0]), ([1, 2, 3], [3.0, 5.0, 7.0])], smoothed=2)
    assert found is not None
    assert list(found.mean) == [2.0, 3.0, 5.0]
    assert list(found.high) == [3.0, 4.0, 6.0]


def test_small_values_after_a_large_one_survive_smoothing():
    found = band([([1, 2, 3, 4], [1e8, 1e-12, 1e-12, 1e-12])], smoothed=2, logarithmic=True)
    assert found is not None
    assert list(found.mean) == pytest.approx([1e8, 5e7, 1e-12, 1e-12])


def test_without_a_shared_step_there_is_none():
    assert band([]) is None
    assert band([([1], [1.0]), ([2], [1.0])]) is None
    assert band([([1], [0.0])], logarithmic=True) is None


def test_a_spike_of_one_seed_stays_in_the_band():
    steps = [float(step) for step in range(5000)]
    flat, spiked = [1.0] * 5000, [1.0] * 5000
    spiked[3333] = 9.0
    found = band([(steps, flat), (steps, spiked), (steps, flat)])
    assert found is not None
    assert len(found.steps) <= 600
    assert (max(found.high), max(found.mean), min(found.low)) == (9.0, pytest.approx(11 / 3), 1.0)
    assert all(low <= mean <= high for low, mean, high in zip(found.low, found.mean, found.high, strict=True))
