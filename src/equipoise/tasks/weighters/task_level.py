"""Task-level aggregation (TLA): every task counts the same in a step, however many tokens it has (CoTBal, 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.tasks.weighters.base import Vector, Weighter


class TaskLevel(Weighter):
    r"""The mean loss of each task present in the step, then the mean over those tasks.

    With $\lambda_i \propto 1/T_i$, eq. 2 is $\frac{1}{n} \sum_i \text{NLL}_i / T_i$ over the n tasks present. The
    weights of those are scaled to mean 1, which eq. 2 does not see, so that a log compares them with other weighters';
    a task that is absent has 1.
    """

    def weights(self, tokens: Sequence[int] | NDArray[Any]) -> Vector:
        tokens_N = np.asarray(tokens)
        present_N = tokens_N > 0
        weights_N = np.ones(len(self.tasks))
        if present_N.any():
            inverse = 1.0 / tokens_N[present_N]
            weights_N[present_N] = inverse / inverse.mean()
        return weights_N
