"""Which tasks of a mixture starve: learn little while the others learn. From one run's log and scores; pure functions.

Neither paper defines it. Losses of unlike tasks cannot be compared, but how far each has fallen can: a fall is the
logarithm of the task's first mean loss over its last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from equipoise.report.numbers import number
from equipoise.report.view import Column

ENOUGH = 20
"""Fewest steps that must have held a task: its first and last mean are each over a quarter of them."""

SHARE = 1 / 3
"""A task starves whose loss fell by less than this part of the others' median fall."""

LEARNS = math.log(1.25)
"""Least median fall of the others: where they stand still too, the run does, and no task is to blame."""

LEARNT = 0.05
"""Loss, in nats a token, below which a task has nothing left to learn: its tokens are given 95 %."""


@dataclass(frozen=True)
class Progress:
    """How far one task has come.

    Attributes:
        first, last: mean loss, in nats a token, over the first and over the last quarter of the steps that held it.
        share: of all tokens that the loss counted, times their tasks' weights; None where they were not logged.
    """

    task: str
    first: float
    last: float
    share: float | None

    @property
    def fall(self) -> float:
        """Logarithm of the first over the last."""
        return math.log(self.first / self.last)


@dataclass(frozen=True)
class Starvation:
    """What a run's log says of its tasks.

    Attributes:
        tasks: those that starve, the worst first.
        sentences: one for each of them with its evidence and what to do, or one that none does.
        known: False where the log is too short to tell.
        ample: those of `tasks` with half of an even share of the weighted tokens or more: they do not lack weight.
    """

    tasks: Sequence[str]
    sentences: Sequence[str]
    known: bool = True
    ample: Sequence[str] = ()


def starvation(columns: Mapping[str, Column]) -> Starvation | None:
    """Name the tasks that starve; None where the log does not tell two tasks apart.

    A task starves when its loss fell by less than a third of the median fall of the others, these did learn, and its
    loss is not near 0 already.

    Args:
        columns: steps and values by key of the log; of use are `task_loss/...`, `task_tokens/...`, `task_weight/...`.
    """
    prefix = "task_loss/"
    tasks = [key.removeprefix(prefix) for key in columns if key.startswith(prefix)]
    if len(tasks) < 2:
        return None
    shares = _shares(columns, tasks)
    come = [_progress(task, columns[prefix + task][1], shares.get(task)) for task in tasks]
    progress = [one for one in come if one is not None]
    if len(progress) < 2:
        return Starvation((), (f"Too few steps to tell whether a task starves: {ENOUGH} of each are needed.",), False)
    found = []
    for one in progress:
        others = median(other.fall for other in progress if other is not one)
        if one.last > LEARNT and others >= LEARNS and one.fall < SHARE * others:
            found.append((one.fall - others, one, others))
    found.sort(key=lambda item: item[0])
    if not found:
        return Starvation((), (_none(progress),))
    least = 1 / len(tasks) / 2
    sentences = [_sentence(one, others, least) for _, one, others in found]
    ample = [one.task for _, one, _ in found if one.share is not None and one.share >= least]
    return Starvation([one.task for _, one, _ in found], sentences, ample=ample)


def unlearnt(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence on each task whose score is no better than what needs no learning, or no looking.

    Args:
        scores: as `scores.json` has them, by task.
    """
    found = []
    for task, entry in scores.items():
        value = number(entry.get("value"))
        rivals = {
            "always giving the commonest answer": number(entry.get("majority")),
            "the same model on other questions' images or clips": number(entry.get("shuffled_inputs")),
        }
        for words, rival in rivals.items():
            if value is not None and rival is not None and value <= rival:
                found.append(f"{task} scores {value:.3f}, no better than {words} ({rival:.3f}).")
                break
    return found


def _progress(task: str, losses: Sequence[float], share: float | None) -> Progress | None:
    if len(losses) < ENOUGH:
        return None
    few = len(losses) // 4
    first, last = fmean(losses[:few]), fmean(losses[-few:])
    tiny = 1e-12  # a loss of 0 has no logarithm
    return Progress(task, max(first, tiny), max(last, tiny), share)


def _shares(columns: Mapping[str, Column], tasks: Sequence[str]) -> dict[str, float]:
    """Each task's share of the weighted tokens, by its mean weight; empty where tokens were not logged."""
    voices = {}
    for task in tasks:
        tokens = columns.get(f"task_tokens/{task}", ([], []))[1]
        weights = columns.get(f"task_weight/{task}", ([], []))[1]
        voices[task] = sum(tokens) * (fmean(weights) if weights else 1.0)
    total = sum(voices.values())
    return {task: voice / total for task, voice in voices.items()} if total > 0 else {}


def _sentence(one: Progress, others: float, least: float) -> str:
    said = f"{one.task} starves: its loss {_change(one.fall)} while the others' median {_change(others)}"
    if one.share is None:
        return f"{said}; give it more weight, or let equipoise balance find the weights."
    has = f"and it has {100 * one.share:.2g} % of the weighted tokens"
    if one.share < least:
        return f"{said}, {has}; give it more weight, or let equipoise balance find the weights."
    return f"{said}, although it has {100 * one.share:.2g} % of the weighted tokens; look at its samples and answers."


def _none(progress: Sequence[Progress]) -> str:
    learning = [one for one in progress if one.last > LEARNT]
    if not learning:
        return f"No task starves: every task's loss is below {LEARNT:g} nats a token."
    least = min(learning, key=lambda one: one.fall)
    return f"No task starves; the least has come of {least.task}, whose loss {_change(least.fall)}."


def _change(fall: float) -> str:
    return f"{'fell' if fall >= 0 else 'rose'} by {abs(100 * (math.exp(-fall) - 1)):.0f} %"
