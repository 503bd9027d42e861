"""What a step of each contestant costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from equipoise.bench.alternate import Step, alternate
from equipoise.bench.contestants import Contestant, build
from equipoise.bench.ratios import Cost, cost
from equipoise.bench.stage import set_up
from equipoise.modules.measuring import SAMPLED_EVERY
from equipoise.recipe import Recipe

#: Rounds that are not counted, and whose batches come again and again after them. So what is timed is a step of any
#: epoch but the first: whatever a Trainer keeps of samples that it has seen is there. No divisor of the usual `every`,
#: so that it is not always the same batch that is measured on.
WARM_UP = 4
Notify = Callable[[str], None]


def time_steps(recipe: Recipe, contestants: Sequence[Contestant], rounds: int, notify: Notify) -> dict[str, list[Step]]:
    """Let the contestants make one step a round.

    Args:
        rounds: how many are counted; raised until an estimator that measures now and then has measured.
        notify: told what is going on.

    Returns:
        The counted steps of each, by name, a step a round.
    """
    rounds = counted(recipe, rounds)
    total = WARM_UP + rounds
    stage = set_up(recipe, total, notify, repeat=WARM_UP)
    with tempfile.TemporaryDirectory(prefix="equipoise-bench-") as scratch:
        trainers = {
            contestant.name: build(contestant, stage, Path(scratch) / str(number))
            for number, contestant in enumerate(contestants)
        }
        made = alternate(trainers, total, recipe.train.seed, lambda n: notify(f"steps: round {n} of {total}"))
    return {name: steps[WARM_UP:] for name, steps in made.items()}


def counted(recipe: Recipe, rounds: int) -> int:
    """The number of rounds that is counted: whole cycles of measuring and not measuring."""
    modules = recipe.balance.modules
    every = modules.every or (SAMPLED_EVERY if modules.estimator == "sampled" else 1)
    return -(-rounds // every) * every


def step_costs(steps: dict[str, list[Step]]) -> dict[str, Cost]:
    """The cost of each contestant's steps, the first one's being 1."""
    reference = next(iter(steps.values()))
    return {name: cost(own, reference) for name, own in steps.items()}
