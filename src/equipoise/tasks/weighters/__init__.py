"""What decides each task's weight at a step, one file a method, and the names that recipes call them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipoise.errors import RecipeError
from equipoise.tasks.weighters.base import Weighter, scaled_window
from equipoise.tasks.weighters.dwa import DynamicWeightAverage
from equipoise.tasks.weighters.equal import Equal
from equipoise.tasks.weighters.fixed import Fixed
from equipoise.tasks.weighters.igb import ImprovableGap
from equipoise.tasks.weighters.random import Random
from equipoise.tasks.weighters.task_level import TaskLevel

WEIGHTERS = ("ew", "tla", "rlw", "dwa", "igbv1", "fixed", "cotbal")

__all__ = [
    "WEIGHTERS",
    "DynamicWeightAverage",
    "Equal",
    "Fixed",
    "ImprovableGap",
    "Random",
    "TaskLevel",
    "Weighter",
    "build_weighter",
]


def build_weighter(
    name: str,
    tasks: Sequence[str],
    *,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    window: int | None = None,
    temperature: float = 2.0,
    total_steps: int | None = None,
) -> Weighter:
    """Make the weighter of this name.

    Args:
        name: one of `WEIGHTERS`.
        tasks: their names, in the order of every vector.
        weights: by task (`fixed`; `cotbal`, whose weights are found before the run and fixed in it).
        seed: of the drawing (`rlw`).
        window: in steps (`dwa`, `igbv1`); when None the method's own, 25 and 100, shortened in runs of fewer than
            1,000 steps (`scaled_window`).
        temperature: T (`dwa`).
        total_steps: optimizer steps of the run, where known.

    Raises:
        RecipeError: an unknown name, or settings that cannot be.
    """
    if window is not None and window < 1:
        raise RecipeError(f"window: found {window}; it must be at least 1")
    if not 0 < temperature < float("inf"):
        raise RecipeError(f"temperature: found {temperature:g}; it must be above 0 and finite")
    match name:
        case "ew":
            return Equal(tasks)
        case "tla":
            return TaskLevel(tasks)
        case "rlw":
            return Random(tasks, seed)
        case "dwa":
            return DynamicWeightAverage(tasks, window or scaled_window(25, total_steps), temperature)
        case "igbv1":
            return ImprovableGap(tasks, window or scaled_window(100, total_steps))
        case "fixed" | "cotbal":
            if weights is None:
                raise RecipeError(f"weighter {name} needs weights: a number for each task")
            return Fixed(tasks, weights)
    raise RecipeError(f"weighter: found {name!r}; allowed: {', '.join(WEIGHTERS)}")
