"""Coordinators that look on while another acts: each sees every step, none leaves a trace in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from equipoise.modules import label_drift
from equipoise.modules.coefficient import BalanceWindow, balance_coefficient, bounded, coordinated_factors
from equipoise.modules.coordinator import Coordinator, Record
from equipoise.modules.drift import look_back
from equipoise.modules.partition import LLM
from equipoise.modules.snapshot import Values


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
        acting: estimates by `exact`.
        watching: by name; their schedules change nothing.
        every: steps between two comparisons of the regulariser's gradients, of a watcher that records them by sample.
    """

    def __init__(self, acting: Coordinator, watching: Mapping[str, Coordinator], every: int):
        self.acting = acting
        self.watching = dict(watching)
        self.every = every
        self.exact = Seen()
        self.drifts: dict[int, dict[str, float]] = {}
        self.seen = {name: Seen() for name in watching}
        self.regularisers: dict[str, list[GradientAgreement]] = {name: [] for name in watching}
        self._previous: Values | None = None

    def observe(self, inputs: Mapping[str, Any]) -> None:
        """As the coordinator's."""
        for coordinator in (self.acting, *self.watching.values()):
            coordinator.observe(inputs)

    def before_step(self, loss_scale: float | None = None, supervises: bool = True) -> None:
        """As the coordinator's; those that watch see the gradients and rates that it has set."""
        for coordinator in (self.acting, *self.watching.values()):
            coordinator.before_step(loss_scale, supervises)
        if self._previous is not None and self.acting.step % self.every == self.every - 1:
            for name, coordinator in self.watching.items():
                found = compare_regularisers(self.acting, coordinator, self._previous)
                if found is not None:
                    self.regularisers[name].append(found)

    def after_step(self, was_skipped: bool = False) -> Record:
        """As the coordinator's, after those that watch have measured."""
        step = self.acting.step
        smallest = self.acting.settings.min_factor
        self._previous = self.acting._before
        for name, coordinator in reversed(self.watching.items()):
            if "window_span" in coordinator.after_step(was_skipped):
                self.seen[name].note(step, coordinator.window, smallest)
        record = self.acting.after_step(was_skipped)
        if "window_span" in record:
            self.drifts[step] = {name: record[f"drift/{name}"] for name in self.acting.window.modules}
            self.exact.note(step, self.acting.window, smallest)
        return record

    def __getattr__(self, name: str) -> Any:
        return getattr(self.acting, name)


@dataclass(frozen=True)
class GradientAgreement:
    """The regulariser's gradients of one step, from gradients by sample, beside the exact ones.

    Attributes:
        cosines: by module, of the drift's gradient.
        norm_ratios: by module, its norm over that of the exact one.
        step_cosines: by module, of what the optimizer is given: loss gradient less regulariser, capped.
    """

    cosines: dict[str, float]
    norm_ratios: dict[str, float]
    step_cosines: dict[str, float]


def compare_regularisers(acting: Coordinator, watching: Coordinator, previous: Values) -> GradientAgreement | None:
    """Compare them on the present batch; None where the watcher records no gradients by sample.

    Args:
        acting: its batches are the step's, whole.
        watching: with the settings of the regulariser.
        previous: theta_{t-1}.
    """
    if watching.measuring.recorder is None:
        return None
    division = acting.division
    _, exact = look_back(acting.model, division, previous, acting.measuring.batches, acting.measuring.states)
    _, cheap = label_drift.look_back(watching.measuring.recorder, division, previous)
    cosines, ratios, steps = {}, {}, {}
    for name, module in division.trainable.items():
        parameters = {n: p for n, p in module.trainable.items() if p.grad is not None and n in exact[name]}
        loss = torch.cat([p.grad.flatten() for p in parameters.values() if p.grad is not None])
        right = torch.cat([exact[name][n].flatten() for n in parameters])
        found = torch.cat([cheap[name][n].flatten() for n in parameters])
        cosines[name] = torch.cosine_similarity(right, found, dim=0).item()
        ratios[name] = (found.norm() / right.norm()).item()
        cap = watching.settings.regulariser_cap or math.inf
        given = [loss - g * min(1.0, cap * (loss.norm() / g.norm()).item()) for g in (right, found)]
        steps[name] = torch.cosine_similarity(given[0], given[1], dim=0).item()
    return GradientAgreement(cosines, ratios, steps)
