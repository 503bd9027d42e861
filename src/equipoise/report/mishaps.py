"""What went wrong with a run's numbers, in sentences: steps not made, losses that are not finite or leap, rates of 0.

From one run's log alone, of which nothing is taken on trust. A run without mishaps has no sentence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.report.numbers import number

REASONS, LETTERS, LONGEST = 5, 200, 1000
"""Most reasons that are named, and letters of each and of why a run ended: a log may hold anything."""

BEFORE, ENOUGH = 50, 20
"""Steps that a loss is compared with, those right before it; and fewest of them."""

TIMES = 3.0
"""A loss spikes that is above so many times the highest of the steps before: batches of unlike tasks may lie decades
apart, and come again and again."""

Columns = Mapping[str, tuple[list[float], list[float]]]

LOSSES = {"loss": "The loss", "validation_loss": "The validation loss"}


class Mishaps:
    """Sees a log line by line, and keeps little of it."""

    def __init__(self) -> None:
        self._steps = 0
        self._row = 0  # steps not made, up to the newest
        self._reasons: dict[str, list[int]] = {}  # count and first step
        self._odd: dict[str, list[int]] = {}
        self._unmeasured = 0
        self._ended: tuple[int, str] | None = None

    def see(self, line: Mapping[str, Any]) -> None:
        """Take note of one line of `metrics.jsonl`."""
        step = int(number(line.get("step")) or 0)
        if isinstance(why := line.get("ended"), str):
            self._ended = step, why[:LONGEST]
        for key in LOSSES:
            if key in line and number(line[key]) is None:
                _count(self._odd, key, step)
        if "loss" not in line:
            return
        self._steps += 1
        self._unmeasured = int(number(line.get("measurements_skipped")) or self._unmeasured)
        why = line.get("skipped_because")
        self._row = self._row + 1 if isinstance(why, str) else 0
        if isinstance(why, str):
            name = why[:LETTERS]
            _count(self._reasons, name if name in self._reasons or len(self._reasons) < REASONS else "other", step)

    def sentences(self, columns: Columns, modules: Sequence[str]) -> list[str]:
        """What to say of the run.

        Args:
            columns: steps and finite values by key of the log.
            modules: those that learn.
        """
        ended = [f"Training ended at step {self._ended[0]:,}: {self._ended[1]}."] if self._ended else []
        return [
            *ended,
            *self._unmade(),
            *self._losses(),
            *_spikes(*columns.get("loss", ([], []))),
            *self._rates(columns, modules),
        ]

    def _unmade(self) -> list[str]:
        if not self._reasons:
            return []
        total = sum(count for count, _ in self._reasons.values())
        each = [f"{why} ({_at(count, first)})" for why, (count, first) in self._reasons.items()]
        ended = f" The log ends with {self._row} of them in a row." if self._row > 1 else ""
        return [f"{total:,} of {_plural(self._steps, 'step')} {_were(total)} not made: {'; '.join(each)}.{ended}"]

    def _losses(self) -> list[str]:
        return [f"{LOSSES[key]} was not finite ({_at(count, first)})." for key, (count, first) in self._odd.items()]

    def _rates(self, columns: Columns, modules: Sequence[str]) -> list[str]:
        still = [name for name in modules if (rates := columns.get(f"lr/{name}", ([], []))[1]) and not any(rates)]
        said = []
        if still and len(still) == len(modules):
            said.append("Every learning rate was 0 at every step: nothing was learned.")
        elif still:
            said.append(f"The learning rate of {', '.join(still)} was 0 at every step: there is no balance to measure.")
        if self._unmeasured:
            said.append(
                f"{_plural(self._unmeasured, 'measurement')} of the balance {_were(self._unmeasured)} left out: "
                "a module's drift was 0, rounding, or not finite."
            )
        return said


def _spikes(steps: Sequence[float], losses: Sequence[float]) -> list[str]:
    """A sentence on the losses that leap, in one pass."""
    found: list[tuple[float, float, float]] = []
    highest: deque[tuple[int, float]] = deque()  # falling, of the steps before; the first is the highest of them
    for place, (step, loss) in enumerate(zip(steps, losses, strict=True)):
        while highest and highest[0][0] < place - BEFORE:
            highest.popleft()
        if place >= ENOUGH and loss > TIMES * highest[0][1] > 0:
            found.append((step, loss, highest[0][1]))
        while highest and highest[-1][1] <= loss:
            highest.pop()
        highest.append((place, loss))
    if not found:
        return []
    step, loss, before = max(found, key=lambda spike: spike[1])
    more = f" (the highest of {len(found):,} such steps)" if len(found) > 1 else ""
    return [f"The loss spiked at step {step:,.0f}: {loss:.3g}, after {before:.3g} at most in the steps before{more}."]


def _count(of: dict[str, list[int]], key: str, step: int) -> None:
    of.setdefault(key, [0, step])[0] += 1


def _at(count: int, first: int) -> str:
    return f"at step {first:,}" if count == 1 else f"{count:,} times, first at step {first:,}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
