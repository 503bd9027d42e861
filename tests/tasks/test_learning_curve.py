"""Scores of full probes from short stretches, against closed forms and against draws of a known curve."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from equipoise.tasks.contribution import contributions
from equipoise.tasks.itinerary import Itinerary
from equipoise.tasks.learning_curve import OWN, SPREAD, exponent, full_scores

COUNTS = {"a": 80, "b": 80, "chat": 40}
PRODUCTS = {
    giver: {taker: [[value] * 2] * 2 for taker, value in row.items()}
    for giver, row in {"a": {"a": 4.0, "b": 1.0}, "b": {"a": -2.0, "b": 2.0}}.items()
}
MINI = {"a": [0.5, 0.5], "b": [0.2, 0.2]}


def itinerary(own: Mapping[str, int] | None = None, joint: int = 0) -> Itinerary:
    return Itinerary(10, 4, 2, own or {}, joint, 0 if own else 3, {"a": 2, "b": 2}, COUNTS, growth=8.0, cost=0.2)


def test_answers_that_agree_tell_the_exponent_exactly():
    # 1 - V = 0.8 / sqrt(n): from n = 1 to 4 it is halved.
    assert exponent([0.2, 0.2], [0.6, 0.6], (1, 4), expected=0.0) == pytest.approx(0.5)
    assert exponent([0.2, 0.2], [0.2, 0.2], (3, 5), expected=OWN) == 0.0
    assert exponent([0.6] * 3, [0.2] * 3, (2, 4), expected=OWN) == pytest.approx(-1.0)
    assert exponent([0.5], [1.0], (2, 4), expected=0.7) == 0.7  # one answer has no spread


def test_answers_that_differ_move_the_expectation_as_far_as_they_are_precise():
    before, after, seen = [0.1, 0.5, 0.3], [0.6, 0.4, 0.8], (10, 20)
    first, last = 0.7, 0.4
    parts = [(1 - q) / last - (1 - p) / first for p, q in zip(before, after, strict=True)]
    squared = np.var(parts, ddof=1) / 3 / math.log(2) ** 2
    found = math.log(first / last) / math.log(2)
    expected = (found / squared + OWN / SPREAD**2) / (1 / squared + 1 / SPREAD**2)
    assert exponent(before, after, seen, OWN) == pytest.approx(expected)


def test_the_error_is_that_of_draws():
    """What it takes for the squared error of a quotient's logarithm is the variance over many draws of answers."""
    generator = np.random.default_rng(0)
    before = generator.beta(1, 2, (4000, 40))
    after = np.clip(before + generator.normal(0.1, 0.1, before.shape), 0, 1)
    logs = np.log((1 - before).mean(axis=1) / (1 - after).mean(axis=1))
    shares = np.array(
        [
            exponent(one, other, (1, math.e), 1.0) - exponent(one, other, (1, math.e), 0.0)
            for one, other in zip(before[:200].tolist(), after[:200].tolist(), strict=True)
        ]
    )  # the expectation's: squared / (squared + SPREAD^2)
    squared = SPREAD**2 * shares / (1 - shares)
    assert squared.mean() == pytest.approx(logs.var(), rel=0.1)


def test_with_a_stretch_for_each_every_pair_is_carried_on_to_the_whole_task():
    made = itinerary(own={"a": 2, "b": 4})
    read = {
        "mini": MINI,
        "a+mini": {"a": [0.6, 0.6], "b": [0.4, 0.4]},
        "b+mini": {"a": [0.4, 0.4], "b": [0.3, 0.3]},
    }
    scores = full_scores(read, made, {})
    assert scores["mini"] == {"a": 0.5, "b": 0.2}
    for giver in ("a", "b"):
        few, many = made.seen(giver)
        for taker, base in scores["mini"].items():
            power = math.log(8) / math.log(many / few)
            error = (1 - base) * ((1 - read[f"{giver}+mini"][taker][0]) / (1 - base)) ** power
            assert scores[f"{giver}+mini"][taker] == pytest.approx(1 - error)
    assert 0 < scores["b+mini"]["a"] < 0.4  # what harms goes on to harm


def test_nothing_is_below_0():
    read = {"mini": MINI, "a+mini": {"a": [0.6, 0.6], "b": [0.0, 0.0]}, "b+mini": {"a": [0.0, 0.0], "b": [0.3, 0.3]}}
    scores = full_scores(read, itinerary(own={"a": 1, "b": 1}), {})
    assert scores["b+mini"]["a"] == 0.0


@pytest.mark.parametrize("joint", [0, 5])
def test_without_contributions_come_from_gradients_and_curves_from_what_there_is(joint):
    made = itinerary(joint=joint)
    read = {"mini": MINI, "all": {"a": [0.6, 0.6], "b": [0.4, 0.4]}}
    scores = full_scores(read, made, PRODUCTS)
    tasks = ("a", "b")
    full = [[scores[f"{giver}+mini"][taker] for taker in tasks] for giver in tasks]
    assert contributions([0.5, 0.2], full) == pytest.approx(np.array([[1.0, 0.5], [-0.5, 1.0]]))
    for task, base, after in (("a", 0.5, 0.6), ("b", 0.2, 0.4)):
        power = OWN
        if joint:
            few, many = made.seen(task)
            power = math.log((1 - base) / (1 - after)) / math.log(many / few)
        assert scores[f"{task}+mini"][task] == pytest.approx(1 - (1 - base) * 8**-power)
