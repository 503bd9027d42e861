"""What one finished run of a comparison gives to it: scores by task and test set, and four numbers of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """One run's results; None where a number is not known.

    Attributes:
        method, seed: which run.
        nodes: the names of its folders: one, or one a task for `stl`, which has no training numbers.
        scores: by task, by test set: the task's own metric, or the name of its further test set before it.
        validation_loss: nats a token.
        kappa: geometric mean after the first quarter of the measurements; of more than two modules, the worst pair's.
        std_log_kappa: standard deviation of the natural logarithm, likewise.
        step_time: of all steps but the first, over the same without the time spent on balancing.
    """

    method: str
    seed: int
    nodes: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    validation_loss: float | None = None
    kappa: float | None = None
    std_log_kappa: float | None = None
    step_time: float | None = None
