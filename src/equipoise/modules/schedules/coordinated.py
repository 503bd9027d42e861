"""CoMMIT's coordinated learning rates (eq. 8-9), for any number of modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.modules.coefficient import bounded, coordinated_factors
from equipoise.modules.schedules.base import Schedule


class Coordinated(Schedule):
    """beta_m = alpha * M * (1/d~_m) / sum_j (1/d~_j), d~ the window's averages; for M = 2, eq. 9.

    The loop this closes has a fixed point of its own: drift is quadratic in the learning rate, so kappa settles at the
    cube root of what equal learning rates give, not at 1 (`docs/method.md`); `Servo` settles at 1.

    Args:
        modules: names of the modules that learn.
        window: N; after more than N skipped measurements in a row the factors decay toward 1, so that a module whose
            drift vanished with its learning rate is not frozen for ever.
        min_factor: no factor falls below it (0: no bound, as in the paper).
    """

    needs_measurement = True

    def __init__(self, modules: Sequence[str], window: int, min_factor: float = 0.0):
        super().__init__(modules)
        self.window = window
        self.min_factor = min_factor
        self._factors = dict.fromkeys(self.modules, 1.0)
        self._skipped = 0

    def factors(self) -> dict[str, float]:
        return dict(self._factors)

    def measured(self, averages: Mapping[str, float]) -> None:
        self._skipped = 0
        self._factors = bounded(self._wanted(averages), self.min_factor)

    def _wanted(self, averages: Mapping[str, float]) -> dict[str, float]:
        return coordinated_factors(averages)

    def skipped(self) -> None:
        self._skipped += 1
        if self._skipped > self.window:
            keep = 1 - 1 / self.window
            self._factors = {name: 1 + keep * (factor - 1) for name, factor in self._factors.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"factors": dict(self._factors), "skipped": self._skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._factors, self._skipped = dict(state["factors"]), state["skipped"]
