r"""Delta I and Delta E (CoTBal, eq. 12-14): how much better, and how much worse, than one model per task.

$$ I_i = \frac{1}{K_i} \sum_{j=1}^{K_i} (-1)^{\delta_{ij}} \frac{M_{e,ij} - M_{b,ij}}{|M_{b,ij}|} \qquad
   \Delta I = \frac{100}{N} \sum_{i=1}^{N} I_i \qquad
   \Delta E = \frac{100}{N} \left| \sum_{i=1}^{N} \min(0, I_i) \right| $$

$M_{e,ij}$ is the method's score on task i's j-th metric, $M_{b,ij}$ the baseline's (the model trained on task i alone),
$\delta_{ij}$ is 1 where lower is better and 0 elsewhere, $N$ the number of tasks. Delta E as the paper defines it is
negative; it prints the absolute value, and so does this. The paper divides by $M_b$ and this by $|M_b|$: the same for
its positive scores, and a negative score that rises is an improvement here too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from equipoise.errors import DataError

#: The scores of one method: by task, by metric (and test set).
Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Deltas:
    """One method against the baseline; all figures in percent.

    Attributes:
        delta_i: mean improvement over tasks; higher is better.
        delta_e: mean over tasks of how far each fell short, 0 for those that did not; lower is better, never negative.
        improvements: I_i, by task.
    """

    delta_i: float
    delta_e: float
    improvements: Mapping[str, float]


def deltas(
    scores: Mapping[str, Scores], baseline: str = "stl", lower_is_better: Collection[str] = ()
) -> dict[str, Deltas]:
    """Compare every method with the baseline.

    Args:
        scores: by method, the baseline's among them. Each has a finite number for the same tasks and metrics.
        baseline: the method that the others are compared with.
        lower_is_better: metrics, by name, for which an increase is no improvement.

    Raises:
        DataError: scores that are missing, left over or not finite, or a baseline's score of 0.
    """
    if baseline not in scores:
        raise DataError(
            f"no scores of the baseline {baseline!r:.60}; found those of {', '.join(scores) or 'no method':.400}"
        )
    for method, tasks in scores.items():
        _check(method, tasks, baseline, scores[baseline])
    return {
        method: _compare(tasks, scores[baseline], lower_is_better)
        for method, tasks in scores.items()
        if method != baseline
    }


def _compare(method: Scores, baseline: Scores, lower_is_better: Collection[str]) -> Deltas:
    improvements = {}
    for task, metrics in baseline.items():
        changes = [
            (-1 if metric in lower_is_better else 1) * (method[task][metric] - single) / abs(single)
            for metric, single in metrics.items()
        ]
        improvements[task] = 100 * sum(changes) / len(changes)
    count = len(improvements)
    return Deltas(
        delta_i=sum(improvements.values()) / count,
        delta_e=sum(max(0.0, -value) for value in improvements.values()) / count,
        improvements=improvements,
    )


def _check(method: str, found: Scores, baseline: str, expected: Scores) -> None:
    """Refuse scores that cannot be compared with the baseline's."""
    if not expected or not all(expected.values()):
        raise DataError(f"{baseline:.60}: found {dict(expected)!s:.200}; needs one task or more, each with a score")
    pairs, wanted = ({(task, metric) for task in each for metric in each[task]} for each in (found, expected))
    for task, metric in sorted(pairs ^ wanted):
        lacking = method if (task, metric) in wanted else baseline
        raise DataError(
            f"{lacking:.60}: no score of task {task:.60}, metric {metric:.60}; "
            f"{method:.60} and {baseline:.60} need the same ones"
        )
    for task, metric in sorted(pairs):
        if not math.isfinite(found[task][metric]):
            raise DataError(
                f"{method:.60}: the score of task {task:.60}, metric {metric:.60} is {found[task][metric]}, not finite"
            )
        if method == baseline and found[task][metric] == 0:
            raise DataError(
                f"{method:.60}: the score of task {task:.60}, metric {metric:.60} is 0, so no improvement is defined"
            )
