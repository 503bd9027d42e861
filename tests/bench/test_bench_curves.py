"""Loss curves: all plain Trainers learn the same, and the largest difference is at whatever step it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from equipoise.bench.contestants import REFERENCE, UNBALANCED, Contestant, line_up
from equipoise.bench.curves import against_the_first, loss_curves
from equipoise.recipe import Recipe


def test_plain_trainers_learn_the_same_without_dropout(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.training.run.HISTORY", 2)  # of longer runs than this, ours keeps the end alone
    recipe = make_recipe(dropout=0.1)
    plain = [contestant for contestant in line_up() if not contestant.balances]
    assert [contestant.name for contestant in plain[:2]] == [REFERENCE.name, f"{REFERENCE.name}, no supervised_logits"]
    faster = Contestant("another rate", modules=UNBALANCED, train={"learning_rate": 3e-2})
    curves = against_the_first(loss_curves(recipe, [*plain, faster], 4, lambda _: None))
    assert all(len(curve["losses"]) == 4 for curve in curves.values())
    assert curves[REFERENCE.name]["largest_difference"] == 0
    for contestant in plain:
        assert curves[contestant.name]["largest_difference"] < 1e-3, contestant.name
    assert curves["another rate"]["largest_difference"] > 1e-2


def test_the_largest_difference_is_looked_for_at_every_step() -> None:
    found = against_the_first({"one": [1.0, 2.0, 3.0], "other": [1.0, 1.5, 3.1]})
    assert found["other"]["largest_difference"] == pytest.approx(0.5)
