"""What a step costs, as a ratio to another's steps of the same rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from equipoise.bench.alternate import Step


@dataclass(frozen=True)
class Cost:
    """What steps cost, the reference's being 1.

    An estimator that measures each fifth step has two kinds of steps, and a median over all would not see the dearer
    kind. So the medians of the two are weighted by how often each came, and so are the quartiles.

    Attributes:
        ratio: (1 - share) median of the plain steps' ratios + share median of the measuring steps'.
        lower, upper: the same of the first and third quartiles.
        plain, measuring: the two medians; None where there was no such step.
        share: of steps that measured.
        ratios: one a round.
    """

    ratio: float
    lower: float
    upper: float
    plain: float | None
    measuring: float | None
    share: float
    ratios: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain data for a file."""
        return asdict(self)


def cost(steps: Sequence[Step], reference: Sequence[Step]) -> Cost:
    """Compare steps with the reference's, round by round.

    Args:
        steps, reference: one a round, at least one.
    """
    pairs = [(step.seconds / other.seconds, step.measured) for step, other in zip(steps, reference, strict=True)]
    plain = [ratio for ratio, measured in pairs if not measured]
    measuring = [ratio for ratio, measured in pairs if measured]
    share = len(measuring) / len(pairs)
    kinds = [(values, weight) for values, weight in ((plain, 1 - share), (measuring, share)) if values]
    lower, ratio, upper = (
        sum(weight * _quartiles(values)[place] for values, weight in kinds) for place in range(3)
    )  # fmt: skip
    return Cost(
        ratio, lower, upper,
        statistics.median(plain) if plain else None, statistics.median(measuring) if measuring else None,
        share, tuple(ratio for ratio, _ in pairs),
    )  # fmt: skip


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0],) * 3
    first, second, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, second, third
