"""Dynamic weight average (DWA; Liu et al., CVPR 2019): more weight to tasks whose loss falls more slowly."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from equipoise.tasks.softmax import scaled_softmax
from equipoise.tasks.weighters.base import Vector, Weighter, relative


class DynamicWeightAverage(Weighter):
    r"""$\lambda = N\,\text{softmax}(w/T)$, $w_i$ = mean loss over i's last window / mean over the window before it.

    A window is W losses of the task itself, one a step: a step without task i adds nothing to i's windows, and moves
    the others'. $w_i$ is 1, no descent, until both of i's windows are full; so all weights are 1 at first.

    Liu et al. average over epochs; instruction tuning has few (often one), so the windows are of steps and slide, as
    in the authors' code. Theirs begins with windows full of ones and takes an absent task's loss as 0; this does not.

    Args:
        tasks: as for `Weighter`.
        window: W, at least 1.
        temperature: T, above 0.
    """

    def __init__(self, tasks: Sequence[str], window: int = 25, temperature: float = 2.0):
        super().__init__(tasks)
        self.window = window
        self.temperature = temperature
        self._losses: list[deque[float]] = [deque(maxlen=2 * window) for _ in self.tasks]

    def weights(self, tokens: Sequence[int] | NDArray[Any]) -> Vector:
        return scaled_softmax([self._descent(list(losses)) for losses in self._losses], self.temperature)

    def _descent(self, losses: list[float]) -> float:
        """w_i, of the losses of both windows, the oldest first."""
        if len(losses) < 2 * self.window:
            return 1.0
        return relative(math.fsum(losses[self.window :]), math.fsum(losses[: self.window]))

    def update(self, losses: Sequence[float] | NDArray[Any]) -> None:
        for window, loss in zip(self._losses, losses, strict=True):
            if math.isfinite(loss):
                window.append(float(loss))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": [list(losses) for losses in self._losses]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for window, losses in zip(self._losses, state["losses"], strict=True):
            window.clear()
            window.extend(losses)
