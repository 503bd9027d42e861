"""A controller whose fixed point is equal drifts, kappa = 1 (ours, not the paper's)."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

from equipoise.errors import RecipeError
from equipoise.modules.schedules.coordinated import Coordinated


def largest_stable_gain(window: int) -> float:
    """N sin^2(pi / 2N): the gain below which the loop settles.

    With u the log-ratio of two factors, drift quadratic in the learning rate gives log kappa = log r + 2u. The step
    u <- u - g * mean of the last N log kappas, around its fixed point, has the characteristic equation
    z^N (z - 1) + (2g/N) (z^{N-1} + ... + 1) = 0, whose roots first leave the unit circle at this g. With more than two
    modules each deviation of log d~_m from their mean obeys the same equation.
    """
    return window * math.sin(math.pi / (2 * window)) ** 2


class Servo(Coordinated):
    """rho_m <- rho_m - g (log d~_m - mean_j log d~_j), factors = M softmax(rho).

    Args:
        modules, window, min_factor: as for `Coordinated`.
        gain: g; half of the largest stable one when None.

    Raises:
        RecipeError: a gain at which the loop does not settle.
    """

    def __init__(self, modules: Sequence[str], window: int, gain: float | None = None, min_factor: float = 0.0):
        super().__init__(modules, window, min_factor)
        bound = largest_stable_gain(window)
        self.gain = bound / 2 if gain is None else gain
        if not 0 < self.gain < bound:
            raise RecipeError(
                f"balance.modules.gain: found {self.gain:g}; with a window of {window} the servo settles only below "
                f"{bound:.4g}"
            )

    def _wanted(self, averages: Mapping[str, float]) -> dict[str, float]:
        logs = {name: math.log(drift) for name, drift in averages.items()}
        centre = sum(logs.values()) / len(logs)
        # rho is the log of the factors as they stand, which also keeps it from winding up against the bound.
        rho = {name: math.log(self._factors[name]) - self.gain * (logs[name] - centre) for name in self.modules}
        highest = max(rho.values())
        # Never 0, whose logarithm the next measurement would ask for.
        weights = {name: max(math.exp(value - highest), sys.float_info.min) for name, value in rho.items()}
        total = sum(weights.values())
        return {name: len(weights) * weight / total for name, weight in weights.items()}
