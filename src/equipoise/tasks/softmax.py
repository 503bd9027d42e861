"""The one form that task weights take: N softmax(values / T)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def scaled_softmax(values: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """N softmax(values / T): positive weights with mean 1; the larger T, the nearer all are to 1.

    Args:
        values: [N], finite.
        temperature: T, above 0.

    Returns:
        [N], in float64. None is 0, however far the values lie apart: a step may hold one task alone, and eq. 2 would
        be 0/0 there.
    """
    values_N = np.asarray(values, dtype=np.float64)
    # A spread beyond the largest float becomes infinite and its exponential 0, as it should.
    with np.errstate(over="ignore", under="ignore"):
        exponentials_N = np.exp((values_N - values_N.max()) / temperature)
        weights_N = len(values_N) * exponentials_N / exponentials_N.sum()
    return np.maximum(weights_N, np.finfo(np.float64).tiny)
