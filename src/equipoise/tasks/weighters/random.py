"""Random loss weighting (RLW; Lin et al., arXiv 2111.10603, Algorithm 2): new weights at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.tasks.softmax import scaled_softmax
from equipoise.tasks.weighters.base import Vector, Weighter


class Random(Weighter):
    r"""$\lambda = N\,\text{softmax}(z)$, $z \sim \mathcal{N}(0, 1)^N$, drawn once for each optimizer step.

    The draw depends on the seed and the step's number alone: it is the same on every rank and after a resumption, and
    takes nothing from any other random state.

    Args:
        tasks: as for `Weighter`.
        seed: at least 0.
    """

    def __init__(self, tasks: Sequence[str], seed: int = 0):
        super().__init__(tasks)
        self.seed = seed
        self._step = 0

    def weights(self, tokens: Sequence[int] | NDArray[Any]) -> Vector:
        return scaled_softmax(np.random.default_rng([self.seed, self._step]).standard_normal(len(self.tasks)))

    def update(self, losses: Sequence[float] | NDArray[Any]) -> None:
        self._step += 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step = state["step"]
