"""The cost of a step, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from equipoise.bench.alternate import Step
from equipoise.bench.memory import Peak, memory_ratios
from equipoise.bench.ratios import cost


def steps(*seconds: float, measured: tuple[int, ...] = ()) -> list[Step]:
    return [Step(value, number in measured) for number, value in enumerate(seconds)]


def test_a_ratio_is_that_of_the_same_round() -> None:
    found = cost(steps(2, 40, 6), steps(1, 20, 2))  # the machine was ten times slower in the second round
    assert found.ratios == (2, 2, 3)
    assert (found.ratio, found.lower, found.upper) == (2, 2, 2.5)
    assert (found.plain, found.measuring, found.share) == (2, None, 0)


def test_dear_steps_count_as_often_as_they_come() -> None:
    found = cost(steps(1, 1, 1, 1, 6, measured=(4,)), steps(1, 1, 1, 1, 1))
    assert found.ratio == pytest.approx(0.8 * 1 + 0.2 * 6)  # a median over all five would be 1
    assert (found.plain, found.measuring, found.share) == (1, 6, 0.2)


def test_quartiles_are_weighted_likewise() -> None:
    found = cost(steps(1, 2, 3, 10, 20, 30, measured=(3, 4, 5)), steps(1, 1, 1, 1, 1, 1))
    assert (found.lower, found.ratio, found.upper) == ((1.5 + 15) / 2, (2 + 20) / 2, (2.5 + 25) / 2)


def test_where_all_steps_measure() -> None:
    found = cost(steps(3, 5, measured=(0, 1)), steps(1, 1))
    assert (found.ratio, found.plain, found.measuring, found.share) == (4, None, 4, 1)


def test_memory_beyond_the_model_and_in_all() -> None:
    found = memory_ratios({"a": Peak(100, 150, 0), "b": Peak(100, 175, 0)})
    assert found == {
        "a": {"steps": 1, "process": 1, "device": None},
        "b": {"steps": 1.5, "process": 175 / 150, "device": None},
    }
