"""What the batches of one optimizer step say of the modules' drifts, by whichever estimator the settings name.

It remembers the step's batches while they are trained on, and measures on them: `look_back` before the step, `measure`
after it. When to measure, and what to do about the drifts, is the coordinator's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from equipoise.modules import drift, label_drift
from equipoise.modules.drift import Batch
from equipoise.modules.forward import RandomState, draw, placeholder_tokens
from equipoise.modules.partition import Partition
from equipoise.modules.per_sample import PerSampleGradients
from equipoise.modules.processes import ALONE, Processes, share
from equipoise.modules.snapshot import Values
from equipoise.modules.tally import Drifts
from equipoise.recipe import Coordination

logger = logging.getLogger(__name__)
#: Steps from one measurement of `sampled` to the next, where the settings say nothing.
SAMPLED_EVERY = 5


class Measuring:
    """Measures drifts on the batches of a step.

    Args:
        model: the model whose forward is measured; called as `model(**inputs)`.
        division: its modules.
        settings: which estimator, on how many samples, and so on.
        processes: which train and measure together, each on batches of its own.
        wanted: whether anything will be measured.

    Attributes:
        estimator: that is used; `sampled` where `per-sample` was asked for and cannot be.
        amplification: the multiple of each step that is measured now.
        recorder: of gradients by sample; None with the other estimators.
        batches, states: the step's micro-batches, and the random states before their training forwards.
    """

    def __init__(
        self,
        model: nn.Module,
        division: Partition,
        settings: Coordination,
        processes: Processes = ALONE,
        wanted: bool = True,
    ):
        self.model = model
        self.division = division
        self.settings = settings
        self.processes = processes
        self.estimator = settings.estimator
        self.amplification = settings.amplification or 1.0
        self.recorder: PerSampleGradients | None = None
        self.batches: list[Batch] = []
        self.states: list[RandomState] = []
        self._theory_step: int | None = None
        if wanted and self.estimator == "per-sample":
            self._record_gradients()

    @property
    def every(self) -> int:
        """Steps from one measurement to the next."""
        if self.estimator == "exact":
            return 1
        return self.settings.every or (1 if self.estimator == "per-sample" else SAMPLED_EVERY)

    # ------------------------------------------------------------------ the step's batches

    def observe(self, inputs: Mapping[str, Any], step: int) -> None:
        """Remember a micro-batch, before its forward."""
        batch, state = {name: value for name, value in inputs.items() if value is not None}, RandomState()
        if self.recorder is not None:
            self.recorder.observe(batch, state, step)
        self.batches.append(batch)
        self.states.append(state)

    def finish(self) -> None:
        """The step's backwards are done; where gradients could not be recorded, drifts are sampled from now on."""
        if self.recorder is None:
            return
        self.recorder.finish()
        if self.recorder.reason is not None:
            if self.processes.number == 0:
                logger.warning("estimator per-sample: %s; sampled is used instead", self.recorder.reason)
            self.estimator, self.recorder = "sampled", None

    def forget(self) -> None:
        """Let go of the step's batches, and of what a step that was broken off has left on the model."""
        self.batches, self.states = [], []
        if self.recorder is not None:
            self.recorder.forget()

    def follow(self, model: nn.Module) -> None:
        """Go on with the model as it was prepared for training, whose parameters `division` holds already."""
        self.model = model
        if self.recorder is not None:
            self._record_gradients()

    # ------------------------------------------------------------------ measuring on them

    def look_back(self, previous: Values, step: int, with_gradients: bool) -> tuple[Drifts, dict[str, Values]]:
        """Drifts of the step before on this step's batches, and their gradients; see `drift.look_back`."""
        if self.recorder is not None:
            return label_drift.look_back(self.recorder, self.division, previous, with_gradients)
        batches, states = self.batches, self.states
        if self.settings.regulariser_samples is not None:
            drawn = self._sample(self.settings.regulariser_samples, step)
            batches, states = [batch for _, batch in drawn], [states[position] for position, _ in drawn]
        return drift.look_back(self.model, self.division, previous, batches, states, with_gradients, self.processes)

    def measure(self, before: Values, step: int) -> tuple[Drifts, dict[str, float]]:
        """Drifts of the step that was just made, and what else is worth logging about how they were measured.

        Args:
            before: the trainable parameters before the step.
            step: its number, from 0.
        """
        if self.recorder is None:
            return self._measure_by_forwards(before, step, self.settings.theory)
        drifts = label_drift.measure(self.recorder, self.division, before, self.amplification)
        large = drifts.gap > label_drift.LARGEST_GAP
        # Not by the step's number: warm-up's first step makes no measurement.
        theory_too = self.settings.theory and (
            self._theory_step is None or step - self._theory_step >= self.settings.theory_every
        )
        if not (large or theory_too):
            return drifts, {}
        self._theory_step = step if theory_too else self._theory_step
        seen, entries = self._measure_by_forwards(before, step, theory_too)
        entries |= {f"forward_drift/{name}": d for name, d in seen.by_module.items()}
        return seen if large else replace(drifts, theory=seen.theory), entries

    def _measure_by_forwards(self, before: Values, step: int, theory: bool) -> tuple[Drifts, dict[str, float]]:
        exact = self.estimator == "exact"
        batches = self.batches if exact else [batch for _, batch in self._sample(self.settings.samples, step)]

        def at(amplification: float, theory: bool = False) -> Drifts:
            return drift.measure(self.model, self.division, before, batches, amplification, theory, self.processes)

        drifts = at(self.amplification, theory)
        measured = step // self.every
        while self.amplification > 1 and measured % self.settings.window == 0:
            if not drifts.usable and not at(1.0).usable:
                break  # not amplification's doing, and it would be given up for ever
            twice = at(2 * self.amplification)
            # Quadratic: d(2c) = 4 d(c), so the drifts, given back divided by c squared, should agree.
            ratios = [twice.by_module[n] / d if d > 0 else math.inf for n, d in drifts.by_module.items()]
            if all(0.75 <= ratio <= 1.25 for ratio in ratios):
                break
            self.amplification = max(1.0, self.amplification / 2)
            drifts = at(self.amplification, theory)
        amplifies = self.settings.amplification not in (None, 1.0)
        return drifts, {"amplification": drifts.amplification} if amplifies else {}

    def _sample(self, count: int, step: int) -> list[tuple[int, Batch]]:
        """This process's share of so many samples of the step's batch, the same ones whenever this step is run."""
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
        return draw(self.batches, share(self.processes, count), generator, placeholder_tokens(self.model))

    def _record_gradients(self) -> None:
        """Record gradients by sample from now on, where the model allows it."""
        samples = share(self.processes, self.settings.samples)
        self.recorder = PerSampleGradients(self.model, self.division, samples, self.settings.seed, self.processes)
        self.finish()

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the settings."""
        return {
            "estimator": self.estimator,
            "trusted": self.recorder is not None and self.recorder.trusted,
            "theory_step": self._theory_step,
            "amplification": self.amplification,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; further entries are not looked at."""
        self._theory_step, self.amplification = state.get("theory_step"), state["amplification"]
        if self.recorder is not None:
            self.recorder.trusted = state.get("trusted", False)
            if state.get("estimator") == "sampled":  # what ruled gradients out need not show in the first batch
                self.estimator, self.recorder = "sampled", None
