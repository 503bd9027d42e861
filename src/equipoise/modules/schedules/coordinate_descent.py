"""Feature CD and Language CD: one side learns until its weights stabilise, then the other (CoMMIT section 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from equipoise.modules.partition import ModuleParameters, norm_of
from equipoise.modules.schedules.base import Schedule
from equipoise.modules.shards import gathered, scattered
from equipoise.modules.snapshot import Values, snapshot


class CoordinateDescent(Schedule):
    """The second side waits until the first is stable, or half of the run is over; then the first waits.

    Stable: over a window of `window` steps, ||theta_t - theta_{t-window}|| / ||theta_{t-window}|| of the first side is
    below `tolerance`. The paper says "until its weights stabilize" and gives no number; these are ours.

    Args:
        first, second: module names of the side that learns first, and of the other.
        total_steps: optimizer steps of the run.
        window: steps; by default a twentieth of the run, at least 5.
        tolerance: relative change.
    """

    def __init__(
        self,
        first: Sequence[str],
        second: Sequence[str],
        total_steps: int,
        window: int | None = None,
        tolerance: float = 1e-3,
    ):
        super().__init__([*first, *second])
        self.first, self.second = frozenset(first), frozenset(second)
        self.half = (total_steps + 1) // 2
        self.window = window or max(5, total_steps // 20)
        self.tolerance = tolerance
        self._step = 0
        self._switched = False
        self._window_start: Values = {}

    def waiting(self) -> frozenset[str]:
        return self.first if self._switched else self.second

    def stepped(self, parameters: Mapping[str, ModuleParameters]) -> None:
        self._step += 1
        if self._switched:
            return
        learning = {n: p for name in self.first for n, p in parameters[name].trainable.items()}
        if self._step >= self.half:
            self._switch()
        elif self._step % self.window == 0:
            if self._window_start and self._relative_change(learning) < self.tolerance:
                self._switch()
            else:
                self._window_start = snapshot(learning)

    def _switch(self) -> None:
        self._switched = True
        self._window_start = {}

    def _relative_change(self, learning: Mapping[str, nn.Parameter]) -> float:
        start = scattered(self._window_start, learning)
        # One after the other: a copy of all that learns might be a copy of the model.
        moved = math.hypot(*(norm_of([p.detach() - start[n]]) for n, p in learning.items()))
        size = norm_of(start.values())
        return moved / size if size > 0 else math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "switched": self._switched, "window_start": gathered(self._window_start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step, self._switched = state["step"], state["switched"]
        self._window_start = dict(state["window_start"])
