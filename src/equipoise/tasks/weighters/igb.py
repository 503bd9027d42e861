"""Improvable gap balancing, version 1 (IGBv1; Dai et al., UAI 2023): more weight to tasks whose loss fell least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from equipoise.tasks.softmax import scaled_softmax
from equipoise.tasks.weighters.base import Vector, Weighter, relative


class ImprovableGap(Weighter):
    r"""$\lambda = N\,\text{softmax}(\text{loss}_i / \text{base}_i)$, base_i = mean loss of steps W to 2W-1.

    Steps count from 0; weights are 1 before step 2W. The base is the mean over those of its steps that hold task i; a
    task absent from all of them takes its first loss afterwards, and has the ratio 1 until then.

    loss_i is task i's newest loss before the step, where Dai et al. take the step's own: under Generic Task Weighting
    a weight must be known before the first of the step's micro-batches. And the losses themselves are weighted, not
    their logarithms, as CoTBal's comparison has it.

    Args:
        tasks: as for `Weighter`.
        window: W, at least 1.
    """

    def __init__(self, tasks: Sequence[str], window: int = 100):
        super().__init__(tasks)
        self.window = window
        self._step = 0
        self._newest = [0.0] * len(self.tasks)
        self._base_sums = [0.0] * len(self.tasks)
        self._base_counts = [0] * len(self.tasks)

    def weights(self, tokens: Sequence[int] | NDArray[Any]) -> Vector:
        acts = self._step >= 2 * self.window
        return scaled_softmax([self._gap(task) if acts else 1.0 for task in range(len(self.tasks))])

    def _gap(self, task: int) -> float:
        count = self._base_counts[task]
        return relative(self._newest[task], self._base_sums[task] / count) if count else 1.0

    def update(self, losses: Sequence[float] | NDArray[Any]) -> None:
        for task, loss in enumerate(map(float, losses)):
            if not math.isfinite(loss):
                continue
            self._newest[task] = loss
            within = self.window <= self._step < 2 * self.window
            late = self._step >= 2 * self.window and self._base_counts[task] == 0
            if within or late:
                self._base_sums[task] += loss
                self._base_counts[task] += 1
        self._step += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "newest": list(self._newest),
            "base_sums": list(self._base_sums),
            "base_counts": list(self._base_counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step = state["step"]
        self._newest = list(state["newest"])
        self._base_sums = list(state["base_sums"])
        self._base_counts = list(state["base_counts"])
