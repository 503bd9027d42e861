"""Equal weighting (EW): the ordinary loss, a mean over all tokens (CoTBal, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.tasks.weighters.base import Vector, Weighter


class Equal(Weighter):
    """lambda_i = 1."""

    def weights(self, tokens: Sequence[int] | NDArray[Any]) -> Vector:
        return np.ones(len(self.tasks))
