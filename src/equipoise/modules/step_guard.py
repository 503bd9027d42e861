"""Optimizer steps that are not made, because nothing good could come of them, and when that ends a run.

A gradient that is not finite leaves weights that are not, in every module once gradients are clipped together, and no
later step mends them. Such a step is left out, counted and said; so is one of which no token was supervised, where an
optimizer would go on by its momentum alone. Several in a row end the run, and weights that are not finite end it at
once. Everything here is decided by numbers that are the same in every process.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from equipoise.errors import DivergenceError
from equipoise.modules.forward import batch_norms

logger = logging.getLogger(__name__)
#: So many steps in a row that are not made end a run. A bad sample costs one step an epoch, a run past saving all.
LIMIT = 10


@dataclass(frozen=True)
class Refusal:
    """Why a step is not made.

    Attributes:
        why: what was found, in words.
        advice: what to try.
        ends: whether it ends the run at once.
        expected: whether it is part of the ordinary course of things (a gradient scaler that looks for its scale):
            counted, and neither said nor a reason to end.
    """

    why: str
    advice: str
    ends: bool = False
    expected: bool = False


LOWER = "try a lower learning rate, a longer warm-up, bf16 instead of fp16, or look for what is odd in their samples"
NOTHING_SUPERVISED = Refusal(
    "no token was supervised", "look at the labels: an answer may be empty, or cut off by the largest length"
)


def overflow(loss_scale: float | None) -> Refusal:
    """That a gradient scaler made no step of its own accord; expected of one that can still lower its scale."""
    return Refusal("a gradient scaler found an overflow", LOWER, expected=loss_scale is None or loss_scale > 1)


def hold_still(optimizer: torch.optim.Optimizer, has_scaler: bool) -> None:
    """Let an optimizer's coming step move nothing: without gradients it leaves parameters and its own state alone.

    A gradient scaler insists on gradients; with one, learning rates are 0, and it finds out by itself what is odd.
    """
    for group in optimizer.param_groups:
        if has_scaler:
            group["lr"] = group["lr"] * 0.0
            continue
        for parameter in group["params"]:
            parameter.grad = None


class BatchStatistics:
    """What BatchNorms that train have gathered, to be put back where a step is not made: its batch is in it already."""

    def __init__(self, model: nn.Module):
        self._norms = batch_norms(model)
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(self) -> None:
        """Before a forward; of a step's forwards, the first counts."""
        if self._norms and not self._kept:
            training = [norm for norm in self._norms if norm.training]
            self._kept = [(buffer, buffer.clone()) for norm in training for buffer in norm.buffers()]

    def put_back(self) -> None:
        """The step is not made."""
        for buffer, value in self._kept:
            buffer.copy_(value)

    def forget(self) -> None:
        """The step is over."""
        self._kept = []


class StepGuard:
    """Judges the steps of a run.

    Args:
        says: whether it warns: one of several processes does.

    Attributes:
        skipped: how many steps were not made.
        in_a_row: how many of the last ones, one after the other.
    """

    def __init__(self, says: bool = True):
        self._says = says
        self.skipped = 0
        self.in_a_row = 0
        self._first = 0  # of those in a row
        self._last: Refusal | None = None
        self._said: set[str] = set()

    def judge(
        self,
        gradients: Mapping[str, float],
        weights: Mapping[str, float],
        supervises: bool = True,
        loss_scale: float | None = None,
    ) -> Refusal | None:
        """Why the coming step is not to be made; None where it is.

        Args:
            gradients, weights: their norms by module, over all processes.
            supervises: whether any token of the step was supervised, in any process.
            loss_scale: a gradient scaler's; None where there is none.
        """
        if spoilt := _not_finite(weights):
            why = f"the weights of {spoilt} are not finite"
            return Refusal(why, "go back to a checkpoint and try a lower learning rate, or a longer warm-up", ends=True)
        if not supervises:
            return NOTHING_SUPERVISED
        if spoilt := _not_finite(gradients):
            if loss_scale is not None:  # it comes to the same end
                return overflow(loss_scale)
            return Refusal(f"the gradients of {spoilt} are not finite", LOWER)
        return None

    def note(self, step: int, refusal: Refusal | None) -> None:
        """Take note of a step that was made (None) or not; say so the first time that it has this reason."""
        if refusal is None:
            self.in_a_row, self._last = 0, None
            return
        self.skipped += 1
        if refusal.expected:
            return
        self._first = step if self.in_a_row == 0 else self._first
        self.in_a_row += 1
        self._last = refusal
        kind = refusal.why.split(" of ")[0]
        if kind not in self._said:
            self._said.add(kind)
            level = logging.WARNING if self._says else logging.DEBUG
            logger.log(level, "step %d is not made: %s; such steps are left out and counted", step, refusal.why)

    @property
    def verdict(self) -> str | None:
        """Why the run has to end, and what to try; None where it goes on."""
        if self._last is None or not (self._last.ends or self.in_a_row >= LIMIT):
            return None
        if self._last.ends:
            return f"{self._last.why}; {self._last.advice}"
        return f"{self.in_a_row} steps in a row, from step {self._first}, were not made: {self._last.why}; " + (
            self._last.advice
        )

    def require_going_on(self) -> None:
        """End the run where it has to end.

        Raises:
            DivergenceError: it has.
        """
        if self.verdict is not None:
            raise DivergenceError(self.verdict)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores; a run that has to end has no checkpoint after it."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "first": self._first, "said": sorted(self._said)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.skipped, self.in_a_row, self._first = state["skipped"], state["in_a_row"], state["first"]
        self._said = set(state["said"])


def _not_finite(norms: Mapping[str, float]) -> str:
    """The modules whose norm is not, named; empty where all are."""
    return ", ".join(name for name, norm in norms.items() if not math.isfinite(norm))
