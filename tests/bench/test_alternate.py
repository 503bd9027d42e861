"""Alternation: each Trainer makes the very steps that it makes alone, one Trainer at a time, in a drawn order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.bench.alternate import alternate
from equipoise.bench.contestants import COORDINATED, REFERENCE, Contestant, build, line_up
from equipoise.bench.stage import set_up
from equipoise.recipe import Recipe

ROUNDS = 4
PLAIN = Contestant("plain", "transformers")


def built(recipe: Recipe, folder: Path, contestants: Any, steps: int = ROUNDS) -> dict[str, Any]:
    stage = set_up(recipe, steps, lambda _: None)
    return {c.name: build(c, stage, folder / str(number)) for number, c in enumerate(contestants)}


def learnt(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_each_trainer_makes_the_steps_that_it_makes_alone(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe({"every": 2})  # two micro-batches a step
    together = built(recipe, tmp_path / "together", line_up())
    alternate(together, ROUNDS, seed=0)
    for number, contestant in enumerate(line_up()):
        [alone] = built(recipe, tmp_path / str(number), [contestant]).values()
        before = learnt(alone)
        alone.train()
        after, other = learnt(alone), learnt(together[contestant.name])
        assert any(not torch.equal(before[name], after[name]) for name in before)
        for name in after:
            assert torch.equal(after[name], other[name]), (contestant.name, name)


def test_contestants_share_frozen_weights_and_begin_alike(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    one, other = (dict(t.model.named_parameters()) for t in built(make_recipe(), tmp_path, [REFERENCE, PLAIN]).values())
    assert one.keys() == other.keys()
    frozen = [name for name, parameter in one.items() if not parameter.requires_grad]
    assert 0 < len(frozen) < len(one)
    for name in one:
        assert torch.equal(one[name], other[name])
        assert (one[name] is other[name]) == (name in frozen)


def test_samples_come_as_in_training_or_again_and_again(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()  # 24 samples, 4 a step
    order = set_up(recipe, 9, lambda _: None).order
    assert sorted(order[:24]) == list(range(24))
    assert len(order) == 36
    assert order[24:] != order[:12]  # the second epoch's order is its own
    again = set_up(recipe, 9, lambda _: None, repeat=2).order
    assert again == (order[:8] * 5)[:36]


def test_one_at_a_time_in_another_order_each_round(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe(gradient_accumulation=1)
    trainers = built(recipe, tmp_path, [REFERENCE, PLAIN, COORDINATED[0]], steps=6)
    inside: list[str] = []
    order: list[str] = []

    def watched(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def training_step(*arguments: Any, **options: Any) -> Any:
            assert not inside
            inside.append(name)
            order.append(name)
            result = step(*arguments, **options)
            inside.remove(name)
            return result

        return training_step

    for name, trainer in trainers.items():
        trainer.training_step = watched(name, trainer.training_step)
    seen: list[int] = []
    steps = alternate(trainers, 6, seed=1, notify=seen.append)
    rounds = [tuple(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert [len(set(names)) for names in rounds] == [3] * 6
    assert len(set(rounds)) > 1
    assert seen == [1, 2, 3, 4, 5, 6]
    assert {name: len(found) for name, found in steps.items()} == dict.fromkeys(trainers, 6)
    assert all(step.seconds > 0 for found in steps.values() for step in found)


def test_says_which_steps_measured(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    exact = COORDINATED[1]
    trainers = built(make_recipe({"every": 3}), tmp_path, [REFERENCE, COORDINATED[0], exact], steps=5)
    steps = alternate(trainers, 5, seed=0)
    assert [step.measured for step in steps[COORDINATED[0].name]] == [True, False, False, True, False]
    assert all(step.measured for step in steps[exact.name])
    assert not any(step.measured for step in steps[REFERENCE.name])


def test_an_error_ends_all(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    trainers = built(make_recipe(), tmp_path, [REFERENCE, PLAIN])
    step = trainers[PLAIN.name].training_step
    calls: list[int] = []

    def fails(*arguments: Any, **options: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 4:
            raise ValueError("the fourth micro-batch")
        return step(*arguments, **options)

    trainers[PLAIN.name].training_step = fails
    threads = threading.active_count()
    with pytest.raises(ValueError, match="the fourth micro-batch"):
        alternate(trainers, ROUNDS, seed=0)
    assert threading.active_count() == threads
