"""Weights that do not change: the user's, or those that CoTBal found (`equipoise.tasks.contribution`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import RecipeError
from equipoise.tasks.weighters.base import Vector, Weighter


class Fixed(Weighter):
    """lambda_i as given; 1 for a task that is not named, such as one without a score.

    Args:
        tasks: as for `Weighter`.
        weights: by task, above 0 and finite.

    Raises:
        RecipeError: a weight that is not, or of no task.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float]):
        super().__init__(tasks)
        for task, weight in weights.items():
            if task not in self.tasks:
                raise RecipeError(f"weight of {task!r}: no such task; there are {', '.join(self.tasks)}")
            if not 0 < weight < math.inf:
                raise RecipeError(f"weight of task {task}: found {weight}; it must be above 0 and finite")
        self._weights = np.array([float(weights.get(task, 1.0)) for task in self.tasks])

    def weights(self, tokens: Sequence[int] | NDArray[Any]) -> Vector:
        return self._weights.copy()
