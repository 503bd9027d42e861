"""What keeps one bad batch from spoiling a run of a Trainer: its counts, its log, its best model, its checkpoints.

transformers' Trainer makes every step, whatever its gradients are: with clipping, one number that is not finite is in
all weights after it, and the loss that it logs is that of the steps before. Which steps are made is for
`equipoise.modules.step_guard`; here is the rest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from equipoise.errors import DivergenceError
from equipoise.modules.forward import IGNORED, batch_norms
from equipoise.modules.partition import Partition
from equipoise.modules.step_guard import Refusal

logger = logging.getLogger(__name__)
Count = torch.Tensor | int | None


class SoundNumbers(Trainer):
    """The part of a balanced Trainer that looks after numbers that are not finite."""

    division: Partition
    _supervised: Count = None  # tokens of the step, over all processes; None where nobody counts them
    _finite_total = 0.0
    _why_ended = ""

    def _count_supervised(
        self, batches: Sequence[Mapping[str, Any]], count: Count, reduce: Callable[[torch.Tensor], torch.Tensor]
    ) -> Count:
        """Note how many tokens of a step are supervised; what its loss is divided by.

        Args:
            batches: the step's micro-batches.
            count: what transformers counted.
            reduce: sums a tensor over processes.
        """
        self._supervised = supervised_tokens(batches) if count is None else count
        of_all = count is not None and self.args.average_tokens_across_devices
        if isinstance(self._supervised, torch.Tensor) and self.accelerator.num_processes > 1 and not of_all:
            self._supervised = reduce(self._supervised)
        return at_least_one(count)

    @property
    def _supervises(self) -> bool:
        """Whether any token of the step is supervised, in any process; read where the device is waited for anyway."""
        return self._supervised is None or bool(torch.as_tensor(self._supervised).any())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, whose sum of losses is emptied by subtracting it from itself: what is not finite stays."""
        if "loss" in logs and hasattr(self, "_tr_loss"):
            self._tr_loss.zero_()
            if math.isfinite(self._total_loss_scalar):
                self._finite_total = self._total_loss_scalar
            else:
                self._total_loss_scalar = self._finite_total
        super().log(logs, start_time)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As Trainer's; a metric that is not finite is not the best, however it compares."""
        name = self.args.metric_for_best_model or ""
        value = metrics.get(name if name.startswith("eval_") else f"eval_{name}")
        if value is not None and not math.isfinite(value):
            logger.warning("step %d: %s is %s, which no best model is chosen by", self.state.global_step, name, value)
            return False
        return super()._determine_best_metric(metrics, trial)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As Trainer's, of a model that is worth keeping."""
        self._require_sound_weights()
        super()._save_checkpoint(*args, **kwargs)

    def _require_sound_weights(self) -> None:
        """End the run where weights are not finite, before they take the place of those that are.

        Raises:
            DivergenceError: they are not.
        """
        assert isinstance(self.model, nn.Module)
        if spoilt := what_is_spoilt(self.model, self.division):
            raise self._ended(f"{spoilt} are not finite; try a lower learning rate or a longer warm-up")

    def _ended(self, why: str) -> DivergenceError:
        """The error that ends a run: where, why, and what is left of it."""
        self._why_ended = why
        folder = self.args.output_dir
        newest = get_last_checkpoint(folder) if folder and Path(folder).is_dir() else None
        kept = f"the last checkpoint, whose weights are finite, is {newest}" if newest else "there is no checkpoint"
        return DivergenceError(f"training ended at step {self.state.global_step}: {why} ({kept})")

    def _without_unmade(self, logs: dict[str, float], refusal: Refusal | None) -> dict[str, float]:
        """A log without the norm of the gradients of a step that was not made: they were dropped, and count as 0."""
        return logs if refusal is None else {name: value for name, value in logs.items() if name != "grad_norm"}


def supervised_tokens(batches: Sequence[Mapping[str, Any]]) -> torch.Tensor | None:
    """How many tokens of some micro-batches are supervised; None where a batch does not say."""
    counts = []
    for batch in batches:
        labels = batch["shift_labels"] if "shift_labels" in batch else batch.get("labels")
        if not isinstance(labels, torch.Tensor):
            return None
        counts.append(((labels if "shift_labels" in batch else labels[..., 1:]) != IGNORED).sum())
    return torch.stack(counts).sum() if counts else None


def at_least_one(count: Count) -> Count:
    """What a loss may be divided by: that of a step that supervises nothing is 0 then, and not 0 / 0."""
    if isinstance(count, torch.Tensor):
        return torch.where(count > 0, count, torch.ones_like(count))
    return max(count, 1) if count is not None else None


def what_is_spoilt(model: nn.Module, division: Partition) -> str:
    """What of a model is not finite, in words; empty where all is."""
    names = [name for name, module in division.trainable.items() if not math.isfinite(module.norm())]
    if names:
        return f"the weights of {', '.join(names)}"
    gathered = [buffer for norm in batch_norms(model) for buffer in norm.buffers() if buffer.is_floating_point()]
    if all(bool(torch.isfinite(buffer).all()) for buffer in gathered):
        return ""
    return "the statistics of a BatchNorm"
