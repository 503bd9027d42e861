"""The multimodal balance coefficient kappa, its moving average, and the learning-rate factors it asks for.

Everything here computes on plain numbers: any training loop can use it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal

Average = Literal["pooled", "mean"]


def balance_coefficient(drift_llm: float, drift_encoder: float) -> float:
    """kappa = d_X / d_S (CoMMIT eq. 5): above 1 the learning leans toward the LLM, below 1 toward the encoder."""
    return drift_llm / drift_encoder


class BalanceWindow:
    """The last N measurements and their average d~_m (CoMMIT eq. 8, for any number of modules).

    - `pooled` (default): d~_m is the mean of d_m over the window, so that kappa~ is a ratio of sums. One noisy
      measurement cannot dominate it.
    - `mean` (the paper): d~_m is the mean of d_m / d_S over the window, for the reference module S; kappa~ is then
      the paper's mean of ratios, which can run away from a far start.

    Fewer than N measurements so far: those that are there.

    Args:
        modules: their names.
        reference: the module S that `mean` divides by.
        size: N, in measurements (not steps).
        average: `pooled` or `mean`.
    """

    def __init__(self, modules: Iterable[str], reference: str, size: int, average: Average = "pooled"):
        self.modules = tuple(modules)
        if size < 1:
            raise ValueError(f"window is {size}; it must be at least 1")
        if reference not in self.modules:
            raise ValueError(f"reference is {reference!r}; it must be one of {', '.join(self.modules)}")
        self.reference = reference
        self.average = average
        self._measurements: deque[tuple[int, dict[str, float]]] = deque(maxlen=size)

    def push(self, step: int, drifts: Mapping[str, float]) -> None:
        """Add one measurement, positive and finite, made at `step`."""
        self._measurements.append((step, {name: float(drifts[name]) for name in self.modules}))

    def averages(self) -> dict[str, float] | None:
        """d~_m by module; None before the first measurement."""
        if not self._measurements:
            return None
        drifts = [values for _, values in self._measurements]
        if self.average == "mean":
            drifts = [{name: d[name] / d[self.reference] for name in self.modules} for d in drifts]
        return {name: sum(d[name] for d in drifts) / len(drifts) for name in self.modules}

    @property
    def span(self) -> int:
        """Steps from the oldest to the newest measurement, both counted."""
        return self._measurements[-1][0] - self._measurements[0][0] + 1 if self._measurements else 0

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores."""
        return {"measurements": list(self._measurements)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the window."""
        self._measurements.clear()
        self._measurements.extend((step, dict(drifts)) for step, drifts in state["measurements"])


def coordinated_factors(averages: Mapping[str, float]) -> dict[str, float]:
    """What multiplies each module's learning rate: M * (1/d~_m) / sum_j (1/d~_j).

    For the paper's two modules this is eq. 9: 2/(kappa~+1) for the LLM, 2/(1/kappa~+1) for the encoder. The factors
    sum to M.
    """
    # Scaled by the smallest drift, so that neither a reciprocal nor their sum can overflow.
    smallest = min(averages.values())
    inverse = {name: smallest / drift for name, drift in averages.items()}
    total = sum(inverse.values())
    return {name: len(inverse) * value / total for name, value in inverse.items()}


def bounded(factors: Mapping[str, float], minimum: float) -> dict[str, float]:
    """Lift factors to `minimum`, taking what that costs from the others in proportion, so that the sum stays M.

    Args:
        factors: positive, with sum M.
        minimum: 0 for no bound; below 1.
    """
    lifted: set[str] = set()
    while True:
        free = {name: value for name, value in factors.items() if name not in lifted}
        scale = (len(factors) - minimum * len(lifted)) / sum(free.values()) if lifted else 1.0
        low = {name for name, value in free.items() if value * scale < minimum}
        if not low:
            return {name: minimum if name in lifted else value * scale for name, value in factors.items()}
        lifted |= low
