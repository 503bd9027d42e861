r"""CoTBal's probes for a share of one final run: what one short run does, stretch by stretch.

The run begins with a *warm start* on all tasks, in the proportions of the mixture. From what it has learnt by then
begin N + 1 *stretches*, and each goes back there: `mini`, a few steps on all tasks again; and for each balanced task i
`i+mini`, the same samples and further ones of task i among them, as many as i's size says. These stand for the full
probes of the same names, whose data are in the same proportions. After each stretch some validation answers of every
task are read.

The budget B is a share of the final run, both counted in training samples; an answer that is read costs `READING` of
one, for it takes a forward pass and a training sample takes a backward pass too. A step sees B times as many samples as
one of the final run, so that as many steps are made as the budget would not otherwise allow: what moves a model by
AdamW's rule is the number of steps.

Nothing here reads data or trains.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice

from equipoise.errors import RecipeError
from equipoise.recipe import Recipe
from equipoise.tasks.contribution import MINI, full_run

#: What an answer that is read costs, in training samples: a forward without a backward pass.
READING = 0.5
#: The share of the budget that goes into reading answers.
READ = 0.4
#: The share of the training that is the warm start.
WARM = 0.25
#: Samples of all tasks in a stretch, for each further sample of one task.
SHARED = 0.5
FEWEST_ANSWERS = 2


@dataclass(frozen=True)
class Itinerary:
    """What the run does.

    Attributes:
        batch_size, gradient_accumulation: of its steps.
        warm: steps of the warm start.
        shared: steps' worth of samples of all tasks, which every stretch sees.
        own: by balanced task, steps' worth of its further samples in its stretch.
        answers: by balanced task, how many are read after each stretch.
        counts: training samples of all tasks.
        growth: how many times the subset the whole of a task is.
        cost: in units of the final run.
    """

    batch_size: int
    gradient_accumulation: int
    warm: int
    shared: int
    own: Mapping[str, int]
    answers: Mapping[str, int]
    counts: Mapping[str, int]
    growth: float
    cost: float

    @property
    def together(self) -> int:
        """Samples of a step."""
        return self.batch_size * self.gradient_accumulation

    @property
    def stretches(self) -> dict[str, int]:
        """Steps by stretch, in their order."""
        return {MINI: self.shared, **{full_run(task): self.shared + steps for task, steps in self.own.items()}}

    @property
    def ends(self) -> dict[int, str]:
        """The step of the whole run after which each stretch ends."""
        names = self.stretches
        return dict(zip(accumulate(names.values(), initial=self.warm), ["", *names], strict=True))

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.warm + sum(self.stretches.values())

    def rate(self, step: int, warmup: float) -> float:
        """The learning rate of a step, counted from 0, as a share of the recipe's: constant after its warm-up, and in
        each stretch falling to 0, as it does at the end of a whole run.

        Args:
            warmup: share of the warm start over which it rises.
        """
        if step < self.warm:
            rising = round(warmup * self.warm)
            return min(1.0, step / rising) if rising else 1.0
        first = self.warm
        for steps in self.stretches.values():
            if step < first + steps:
                return 1.0 - (step - first) / steps
            first += steps
        return 0.0

    def draws(self, seed: int) -> list[tuple[str, int]]:
        """Task and number of each sample, in the order in which the run sees them.

        A task's samples come in an order of their own, those of the warm start before those of the stretches, so that
        none comes twice before all have come; every stretch sees the same shared ones.
        """
        queues = {task: self._queue(task, seed) for task in self.counts}
        order = self._mixed(_take(queues, self._quotas(self.warm)), f"{seed}/warm")
        shared = _take(queues, self._quotas(self.shared))
        order += self._mixed(shared, f"{seed}/{MINI}")
        for task, steps in self.own.items():
            own = _take(queues, {task: steps * self.together})
            order += self._mixed([*shared, *own], f"{seed}/{full_run(task)}")
        return order

    def seen(self, task: str) -> tuple[int, int]:
        """How many of a task's samples the model has seen after the stretch `mini`, and after the task's own."""
        few = max(1, self._quotas(self.warm)[task] + self._quotas(self.shared)[task])
        return few, few + self.own[task] * self.together

    def _quotas(self, steps: int) -> dict[str, int]:
        """So many steps' samples, shared out among all tasks by their sizes: largest remainders first."""
        return _shares(self.counts, steps * self.together)

    def _queue(self, task: str, seed: int) -> Iterator[tuple[str, int]]:
        numbers = list(range(self.counts[task]))
        random.Random(f"{seed}/{task}/budget").shuffle(numbers)
        return cycle([(task, number) for number in numbers])

    @staticmethod
    def _mixed(samples: Sequence[tuple[str, int]], seed: str) -> list[tuple[str, int]]:
        return random.Random(f"{seed}/budget").sample(samples, len(samples))


def itinerary(
    recipe: Recipe, counts: Mapping[str, int], validated: Mapping[str, int], tested: Mapping[str, int]
) -> Itinerary:
    """What `balance.cotbal.budget` allows.

    Args:
        recipe: of the final run.
        counts: training samples of each task that has a training part, before its `fraction`.
        validated: answered validation samples of each balanced task.
        tested: test samples of each task that is tested.

    Raises:
        RecipeError: a budget for which nothing can be done.
    """
    budget, train = recipe.balance.cotbal.budget, recipe.train
    assert budget is not None
    sizes = {task.name: task.share_of(counts[task.name]) for task in recipe.tasks if task.name in counts}
    whole = train.batch_size * train.gradient_accumulation
    trained = train.max_steps * whole if train.max_steps is not None else train.epochs * sum(sizes.values())
    final = trained + READING * sum(tested.values())
    together = max(1, round(whole * budget))
    batch_size = min(train.batch_size, together)
    accumulation = together // batch_size
    together = batch_size * accumulation
    count = len(validated)
    reads = (count + 1) * count * READING  # what one answer a task costs
    answers = max(FEWEST_ANSWERS, int(READ * budget * final / reads))
    asked = {task: min(answers, found) for task, found in validated.items()}
    reading = READING * (count + 1) * sum(asked.values())
    steps = int((budget * final - reading) / together)
    warm = max(1, min(round(WARM * steps), steps - (count + 1) - count))
    # (N + 1) s shared steps and N further ones of every task, with s = SHARED times the further ones of a task.
    shared = max(1, int(SHARED * (steps - warm) / (count + (count + 1) * SHARED)))
    left = steps - warm - (count + 1) * shared
    if left < count:
        least = (together * (1 + (count + 1) + count) + FEWEST_ANSWERS * reads) / final
        raise RecipeError(
            f"balance.cotbal.budget: found {budget:g}; one step of each kind for {count} tasks and {FEWEST_ANSWERS} "
            f"answers of each cost {least:.3g} final runs"
        )
    own = {task: 1 + more for task, more in _shares({task: sizes[task] for task in validated}, left - count).items()}
    made = warm + (count + 1) * shared + sum(own.values())
    cost = (made * together + reading) / final
    growth = 1 / recipe.balance.cotbal.mini_fraction
    return Itinerary(batch_size, accumulation, warm, shared, own, asked, sizes, growth, cost)


def at_full_size(base: float, end: float, seen: tuple[int, int], growth: float) -> float:
    r"""A task's score after a full probe, from scores after short stretches.

    Errors $1 - V$ fall, or rise, as a power of the number of samples of the task that the stretch is about. From n to
    n' of them the error went from $1 - V$ to $1 - V'$; from the subset to the whole of the task, which is g times as
    many, it goes to

    $$ (1 - V) \left( \frac{1 - V'}{1 - V} \right)^{\log g / \log(n'/n)} $$

    Args:
        base: V, after the stretch `mini`, from 0 to 1.
        end: V', after the task's own.
        seen: n and n', n' being the larger.
        growth: g.

    Returns:
        From 0 to 1.
    """
    missing = 1.0 - base
    if missing <= 0.0 or end == base:  # nothing was left to learn, or nothing changed, not even by rounding
        return end
    few, many = seen
    power = math.log(growth) / math.log(many / few)
    return 1.0 - min(1.0, missing * ((1.0 - end) / missing) ** power)


def full_scores(read: Mapping[str, Mapping[str, float]], made: Itinerary) -> dict[str, dict[str, float]]:
    """The table of scores that the full probes would give, from what was read after each stretch.

    Args:
        read: by stretch, by task, from 0 to 1.
        made: the stretches.
    """
    base = dict(read[MINI])
    rows = {
        full_run(giver): {
            task: at_full_size(base[task], value, made.seen(giver), made.growth)
            for task, value in read[full_run(giver)].items()
        }
        for giver in made.own
    }
    return {MINI: base, **rows}


def _shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """`count` things shared out by size, largest remainders first; the first of equal ones."""
    total = sum(sizes.values())
    exact = {name: count * size / total for name, size in sizes.items()}
    found = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: found[name] - exact[name])
    for name in by_remainder[: count - sum(found.values())]:
        found[name] += 1
    return found


def _take(queues: Mapping[str, Iterator[tuple[str, int]]], quotas: Mapping[str, int]) -> list[tuple[str, int]]:
    """The next samples of each task."""
    return [sample for task, count in quotas.items() for sample in islice(queues[task], count)]
