"""What every metric returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """The score of a task's predictions.

    Attributes:
        value: of the whole task, as tables show it; higher is better in every metric here.
        samples: one value a prediction, in their order; `value` is their mean.
        also: further figures of the same predictions, by name.
    """

    value: float
    samples: tuple[float, ...]
    also: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def mean_of(cls, samples: Sequence[float], also: Mapping[str, float] | None = None) -> Score:
        """The score whose value is the mean of its samples; of none at all it is 0."""
        return cls(sum(samples) / len(samples) if samples else 0.0, tuple(samples), dict(also or {}))


#: A metric takes predictions and, for each, the references that count as right.
Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], Score]
