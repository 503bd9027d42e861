"""Contributions from products of gradients, and how much of them is taken for noise."""

from __future__ import annotations

import numpy as np
import pytest

from equipoise.tasks.gradients import Products, alignments, share_kept

TASKS = tuple("abcdef")


def exact(rows: dict[str, dict[str, float]]) -> Products:
    """Without noise: all halves agree."""
    return {giver: {taker: [[value] * 2] * 2 for taker, value in row.items()} for giver, row in rows.items()}


def test_without_noise_they_are_quotients_from_minus_1_to_1():
    found = alignments(exact({"a": {"a": 4.0, "b": 1.0}, "b": {"a": -2.0, "b": 2.0}}))
    assert found == {"a": {"a": 1.0, "b": 0.5}, "b": {"a": -0.5, "b": 1.0}}
    large = alignments(exact({"a": {"a": 1.0, "b": 9.0}, "b": {"a": -9.0, "b": 1.0}}))
    assert large == {"a": {"a": 1.0, "b": 1.0}, "b": {"a": -1.0, "b": 1.0}}


def test_nothing_is_known_of_a_task_whose_own_gradients_disagree():
    found = alignments(exact({"a": {"a": -1.0, "b": 1.0}, "b": {"a": 1.0, "b": 2.0}}))
    assert found == {"a": {"a": 1.0, "b": 0.5}, "b": {"a": 0.0, "b": 1.0}}
    nothing = alignments(exact({"a": {"a": 1.0, "b": 0.0}, "b": {"a": 0.0, "b": 1.0}}))
    assert nothing == {"a": {"a": 1.0, "b": 0.0}, "b": {"a": 0.0, "b": 1.0}}


def test_the_share_kept_is_that_of_the_mean_square_which_noise_does_not_explain():
    assert share_kept([(1.0, 0.0), (-1.0, 0.0)]) == 1.0
    assert share_kept([(1.0, 2.0), (-1.0, 0.0)]) == pytest.approx(0.5)  # 1 of 2
    assert share_kept([(1.0, 4.0), (1.0, 0.0)]) == 0.0
    assert share_kept([]) == 0.0


def products(noise: float, seed: int) -> Products:
    """Of gradients in 300 dimensions: each task has its own, those of every second task have a part in common."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=300)
    true = {task: generator.normal(size=300) + (number % 2) * common for number, task in enumerate(TASKS)}

    def halves(task: str) -> list[np.ndarray]:
        return [true[task] + noise * generator.normal(size=300) for _ in range(2)]

    given, wanted = ({task: halves(task) for task in TASKS} for _ in range(2))
    return {
        giver: {taker: [[float(g @ h) for h in wanted[taker]] for g in given[giver]] for taker in TASKS}
        for giver in TASKS
    }


def test_shrunk_ones_are_nearer_to_the_truth_the_noisier_they_are():
    errors = []
    for seed in range(40):
        truth, noisy = alignments(products(0.0, seed)), products(5.0, seed)
        for giver in TASKS:
            for taker in set(TASKS) - {giver}:
                own = np.mean(noisy[taker][taker])
                raw = float(np.clip(np.mean(noisy[giver][taker]) / own, -1, 1)) if own > 0 else 0.0
                shrunk = alignments(noisy)[giver][taker]
                errors.append(((raw - truth[giver][taker]) ** 2, (shrunk - truth[giver][taker]) ** 2))
    raw, shrunk = np.mean(errors, axis=0)
    assert shrunk < 0.7 * raw
    exactly, noisy = alignments(products(0.0, 0)), alignments(products(0.1, 0))
    assert noisy["b"]["d"] == pytest.approx(exactly["b"]["d"], abs=0.05)  # little noise, little shrinking
