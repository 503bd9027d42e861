r"""CoTBal's probes for a share of one final run: what one short run does, stretch by stretch.

The run begins with a *warm start* on all tasks, in the proportions of the mixture. From what it has learnt by then
begin *stretches*, and each goes back there. The first is `mini`, some steps on all tasks again. What else there is
depends on what the budget can buy:

- Where it can read `ENOUGH` answers of each task so many times, a stretch follows for each balanced task i, `i+mini`:
  the same samples and further ones of task i among them, as many as i's size says. These stand for the full probes of
  the same names, whose data are in the same proportions.
- Else what a task does for another would be lost in the noise of the answers. It is told from gradients after `mini`
  instead, and each task's own learning curve from one stretch `all`, with as many further samples of all tasks as the
  model has seen before; or from nothing, where there is no budget for that either.

The budget B is a share of the final run, both counted in training samples; an answer that is read costs `READING` of
one, for it takes a forward pass and a training sample takes a backward pass too.

Nothing here reads data or trains.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, cycle, islice

from equipoise.errors import RecipeError
from equipoise.recipe import Recipe
from equipoise.tasks.contribution import MINI, full_run

ALL = "all"
#: What an answer that is read costs, in training samples: a forward without a backward pass.
READING = 0.5
#: Answers of a task without which nothing can be said of what another does for it.
ENOUGH = 64
FEWEST_ANSWERS = 2
#: Where each task has a stretch: the share of the budget that reads answers, the share of the training that is the warm
#: start, and steps on all tasks for each further one on one task.
READ, WARM, SHARED = 0.4, 0.25, 0.5
#: Where not: the largest share of the budget that goes into the warm start and `mini` together, the share of these that
#: is `mini`, the share of the budget for gradients, and the most samples of each side of one.
FIRST, SETTLING, COMPARED, MOST_COMPARED = 0.5, 0.4, 0.35, 64


@dataclass(frozen=True)
class Itinerary:
    """What the run does.

    Attributes:
        together: samples of a step.
        warm: steps of the warm start.
        shared: steps' worth of samples of all tasks, which every stretch sees.
        own: by balanced task, steps' worth of its further samples in its stretch; empty where there are none of these.
        joint: steps' worth of further samples of all tasks in `all`; 0 where there is no such stretch.
        compared: samples of each task, and answers of each, whose gradients are taken after `mini`; 0 for none.
        answers: by balanced task, how many are read after each stretch.
        counts: training samples of all tasks.
        growth: how many times the subset the whole of a task is.
        cost: in units of the final run.
    """

    together: int
    warm: int
    shared: int
    own: Mapping[str, int]
    joint: int
    compared: int
    answers: Mapping[str, int]
    counts: Mapping[str, int]
    growth: float
    cost: float

    @property
    def stretches(self) -> dict[str, int]:
        """Steps by stretch, in their order."""
        further = {ALL: self.joint} if self.joint else {full_run(task): steps for task, steps in self.own.items()}
        return {MINI: self.shared, **{name: self.shared + steps for name, steps in further.items()}}

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
        further = {ALL: self._quotas(self.joint)} if self.joint else {}
        further |= {full_run(task): {task: steps * self.together} for task, steps in self.own.items()}
        for name, quotas in further.items():
            order += self._mixed([*shared, *_take(queues, quotas)], f"{seed}/{name}")
        return order

    def compares(self, seed: int) -> dict[str, list[int]]:
        """By balanced task, the numbers of the samples whose gradients are taken: the last of those in `draws`' order,
        which the run has not seen unless it sees all."""
        return {task: self._order(task, seed)[-self.compared :] for task in self.answers if self.compared}

    def seen(self, task: str) -> tuple[int, int]:
        """How many of a task's samples the model has seen after the stretch `mini`, and after the task's (or `all`)."""
        few = max(1, self._quotas(self.warm)[task] + self._quotas(self.shared)[task])
        more = self._quotas(self.joint)[task] if self.joint else self.own[task] * self.together
        return few, few + max(1, more)

    def _quotas(self, steps: int) -> dict[str, int]:
        """So many steps' samples, shared out among all tasks by their sizes: largest remainders first."""
        return _shares(self.counts, steps * self.together)

    def _queue(self, task: str, seed: int) -> Iterator[tuple[str, int]]:
        return cycle([(task, number) for number in self._order(task, seed)])

    def _order(self, task: str, seed: int) -> list[int]:
        numbers = list(range(self.counts[task]))
        random.Random(f"{seed}/{task}/budget").shuffle(numbers)
        return numbers

    @staticmethod
    def _mixed(samples: Sequence[tuple[str, int]], seed: str) -> list[tuple[str, int]]:
        return random.Random(f"{seed}/budget").sample(samples, len(samples))


def make_itinerary(
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
    together = train.batch_size * train.gradient_accumulation
    trained = train.max_steps * together if train.max_steps is not None else train.epochs * sum(sizes.values())
    final = trained + READING * sum(tested.values())
    subset = recipe.balance.cotbal.mini_fraction
    bought = _Bought(budget * final, together, sizes, validated)
    found = bought.each() or bought.all_together(max(1, round(subset * trained / together)))
    if found is None:
        raise RecipeError(
            f"balance.cotbal.budget: found {budget:g}; two steps of {together} samples, a gradient and "
            f"{FEWEST_ANSWERS} answers of each of {len(validated)} tasks cost {bought.least() / final:.3g} final runs"
        )
    made = Itinerary(together, **asdict(found), counts=sizes, growth=1 / subset, cost=0.0)
    spent = made.steps * together + READING * len(made.stretches) * sum(made.answers.values())
    return replace(made, cost=(spent + 2 * made.compared * len(validated)) / final)


@dataclass(frozen=True)
class _Parts:
    """Those of an itinerary that a budget decides."""

    warm: int
    shared: int
    own: dict[str, int]
    joint: int
    compared: int
    answers: dict[str, int]


@dataclass(frozen=True)
class _Bought:
    """What so many training samples' worth buys.

    Attributes:
        worth: the budget.
        together: samples of a step.
        sizes: training samples of all tasks.
        validated: answers there are of the balanced ones.
    """

    worth: float
    together: int
    sizes: Mapping[str, int]
    validated: Mapping[str, int]

    def each(self) -> _Parts | None:
        """A stretch for each task; None where that cannot be."""
        count = len(self.validated)
        answers = self._answers(count + 1, READ * self.worth)
        if any(asked < min(ENOUGH, self.validated[task]) for task, asked in answers.items()):
            return None
        steps = int((self.worth - READING * (count + 1) * sum(answers.values())) / self.together)
        warm = max(1, min(round(WARM * steps), steps - (count + 1) - count))
        # (N + 1) s shared steps and N further ones of every task, with s = SHARED times the further ones of a task.
        shared = max(1, int(SHARED * (steps - warm) / (count + (count + 1) * SHARED)))
        left = steps - warm - (count + 1) * shared
        if left < count:
            return None
        more = _shares({task: self.sizes[task] for task in self.validated}, left - count)
        return _Parts(warm, shared, {task: 1 + steps for task, steps in more.items()}, 0, 0, answers)

    def all_together(self, subset: int) -> _Parts | None:
        """No stretch of single tasks; None where not even that can be.

        Args:
            subset: steps that the full probe `mini` makes.
        """
        first = max(2, min(subset, int(FIRST * self.worth / self.together)))
        shared = max(1, round(SETTLING * first))
        sides = 2 * len(self.validated)
        fewest = min(*self.validated.values(), *(self.sizes[task] for task in self.validated))
        compared = min(MOST_COMPARED, int(COMPARED * self.worth / sides), fewest)
        left = self.worth - first * self.together - compared * sides
        room = (first + shared) * self.together <= left / 2 and 2 * self.least_reading() <= left / 2
        joint = first if room else 0
        if joint:  # what reading leaves goes into further steps
            answers = self._answers(2, left - (joint + shared) * self.together)
            reading = READING * 2 * sum(answers.values())
            joint = int((left - reading) / self.together) - shared
        else:
            answers = self._answers(1, left)
        if compared < 2 or left < self.least_reading():
            return None
        return _Parts(first - shared, shared, {}, joint, compared, answers)

    def least(self) -> float:
        """What the least that can be costs."""
        sides = 2 * len(self.validated)
        # A step each of warm start and `mini`, a gradient of two halves of each side, and what must be read.
        parts = 2 * self.together, 2 * sides, self.least_reading()
        return max(parts[0] / FIRST, parts[1] / COMPARED, sum(parts), self.least_reading() / (1 - FIRST - COMPARED))

    def least_reading(self) -> float:
        """What the fewest answers cost, read once."""
        return READING * sum(min(FEWEST_ANSWERS, found) for found in self.validated.values())

    def _answers(self, times: int, worth: float) -> dict[str, int]:
        """Answers by task, where all are read so many times for so much: no more than there are."""
        asked = max(FEWEST_ANSWERS, int(worth / (READING * times * len(self.validated))))
        return {task: min(asked, found) for task, found in self.validated.items()}


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
