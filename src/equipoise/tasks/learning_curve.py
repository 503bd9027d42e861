r"""The scores that full probes would give, from what little of them was trained and read.

Errors $E = 1 - V$ fall, or rise, as a power of the number of a task's samples: over a stretch in which task i's samples
grew from n to n', task j's error went from E to E', with the exponent

$$ \hat a = \frac{\log (E / E')}{\log (n' / n)} $$

Few answers tell it roughly. They are the same ones before and after, so the squared error of $\log(E/E')$ is the
variance over answers of $e'/E' - e/E$, divided by their number (first order). Before any is read, an exponent is taken
to be `OWN` for a task's own samples and 0 for another's, give or take `SPREAD`; what is read moves it as far as its
precision allows:

$$ a = \frac{s^2 \hat a + \sigma^2 a_0}{s^2 + \sigma^2} $$

with $s$ the spread and $\sigma$ the error of $\hat a$. After the whole of a task, g times its subset, the error is
$E\,g^{-a}$, and no larger than 1.

`OWN` and `SPREAD` are what full probes of the embedded mixture had (docs/cotbal.md): two seeds of five tasks, whose
exponents were 0.28 on average with a standard deviation of 0.24. Nothing here reads data or trains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from equipoise.tasks.contribution import MINI, full_run
from equipoise.tasks.gradients import Products, alignments
from equipoise.tasks.itinerary import ALL, Itinerary

OWN, SPREAD = 0.3, 0.25
#: No error is taken to be smaller, for nothing could be said of its logarithm.
LEAST = 1e-6
#: By stretch, by task, the probability of each answer read; the same answers in the same order in all.
Read = Mapping[str, Mapping[str, Sequence[float]]]


def full_scores(read: Read, made: Itinerary, products: Products) -> dict[str, dict[str, float]]:
    """The table of scores that `contribution.balance_tasks` takes.

    Args:
        read: what was read after each stretch.
        made: the stretches.
        products: of gradients, where any were taken.
    """
    base = {task: _mean(answers) for task, answers in read[MINI].items()}
    if made.own:
        rows = {
            full_run(giver): {
                taker: _whole(
                    base[taker],
                    exponent(read[MINI][taker], answers, made.seen(giver), OWN if taker == giver else 0.0),
                    made,
                )
                for taker, answers in read[full_run(giver)].items()
            }
            for giver in base
        }
        return {MINI: base, **rows}
    powers = dict.fromkeys(base, OWN)
    if made.joint:
        powers = {task: exponent(read[MINI][task], read[ALL][task], made.seen(task), OWN) for task in base}
    whole = {task: _whole(base[task], power, made) for task, power in powers.items()}
    aligned = alignments(products)
    return {
        MINI: base,
        **{
            full_run(giver): {
                taker: base[taker] + aligned[giver][taker] * (whole[taker] - base[taker]) for taker in base
            }
            for giver in base
        },
    }


def _whole(base: float, power: float, made: Itinerary) -> float:
    """The score after the whole of a task, from that after its subset."""
    if power == 0.0:  # nothing changes, not even by rounding
        return base
    return 1.0 - min(1.0, (1.0 - base) * made.growth**-power)


def exponent(before: Sequence[float], after: Sequence[float], seen: tuple[int, int], expected: float) -> float:
    """a, of a task whose answers had these probabilities.

    Args:
        before, after: [n] each, of the same answers.
        seen: n and n', how many samples the stretch began and ended with.
        expected: a_0.
    """
    first, last = (max(LEAST, 1.0 - _mean(answers)) for answers in (before, after))
    grown = math.log(seen[1] / seen[0])
    found = math.log(first / last) / grown
    count = len(before)
    if count < 2:
        return expected
    parts = [(1.0 - q) / last - (1.0 - p) / first for p, q in zip(before, after, strict=True)]
    mean = _mean(parts)
    variance = sum((part - mean) ** 2 for part in parts) / (count - 1) / count / grown**2
    return (SPREAD**2 * found + variance * expected) / (SPREAD**2 + variance)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
