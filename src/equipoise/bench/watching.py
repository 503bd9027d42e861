"""Coordinators that look on while another acts: each sees every step, none leaves a trace in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equipoise.modules.coefficient import BalanceWindow, balance_coefficient, bounded, coordinated_factors
from equipoise.modules.coordinator import Coordinator, Record
from equipoise.modules.partition import LLM


@dataclass
class Seen:
    """What one estimator saw at each step.

    Attributes:
        log_kappas: by step at which it measured, log of kappa~, the ratio of its window's averages.
        spans: by step, over how many steps that window reaches.
        factors: by step, the learning-rate factors that follow (eq. 9); they hold until the next measurement.
    """

    log_kappas: dict[int, float] = field(default_factory=dict)
    spans: dict[int, int] = field(default_factory=dict)
    factors: dict[int, dict[str, float]] = field(default_factory=dict)

    def note(self, step: int, window: BalanceWindow, smallest: float) -> None:
        """Note a window after it was given a measurement."""
        averages = window.averages()
        assert averages is not None
        self.log_kappas[step] = math.log(balance_coefficient(averages[LLM], averages[window.reference]))
        self.spans[step] = window.span
        self.factors[step] = bounded(coordinated_factors(averages), smallest)


class Watched:
    """A coordinator that acts, seen from outside as that one, and others that only measure the same steps.

    Args:
        acting: estimates by `exact` and has the regulariser, whose drifts are what `lookback` sees.
        watching: by name; their schedules change nothing.
    """

    LOOKBACK = "lookback"

    def __init__(self, acting: Coordinator, watching: Mapping[str, Coordinator]):
        self.acting = acting
        self.watching = dict(watching)
        self.exact = Seen()
        self.drifts: dict[int, dict[str, float]] = {}
        self.seen = {name: Seen() for name in (*watching, self.LOOKBACK)}
        settings = acting.settings
        self._window = BalanceWindow(acting.window.modules, acting.reference, settings.window, settings.average)

    def observe(self, inputs: Mapping[str, Any]) -> None:
        """As the coordinator's."""
        for coordinator in (self.acting, *self.watching.values()):
            coordinator.observe(inputs)

    def before_step(self, loss_scale: float = 1.0) -> None:
        """As the coordinator's; those that watch see the gradients and rates that it has set."""
        for coordinator in (self.acting, *self.watching.values()):
            coordinator.before_step(loss_scale)

    def after_step(self, was_skipped: bool = False) -> Record:
        """As the coordinator's, after those that watch have measured."""
        step = self.acting.step
        smallest = self.acting.settings.min_factor
        for name, coordinator in reversed(self.watching.items()):
            if "window_span" in coordinator.after_step(was_skipped):
                self.seen[name].note(step, coordinator.window, smallest)
        record = self.acting.after_step(was_skipped)
        if "window_span" in record:
            self.drifts[step] = {name: record[f"drift/{name}"] for name in self.acting.window.modules}
            self.exact.note(step, self.acting.window, smallest)
        back = {name: record.get(f"lookback_drift/{name}", 0.0) for name in self.acting.window.modules}
        if all(math.isfinite(drift) and drift > 0 for drift in back.values()):
            self._window.push(step - 1, back)
            self.seen[self.LOOKBACK].note(step - 1, self._window, smallest)
        return record

    def __getattr__(self, name: str) -> Any:
        return getattr(self.acting, name)
