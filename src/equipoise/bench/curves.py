"""Whether a faster Trainer learns the same: loss curves beside each other, step by step.

Without LoRA's dropout, whose masks our Trainer draws otherwise on a CPU. What is left is the order of additions, and
what the optimizer makes of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from equipoise.bench.contestants import Contestant, build
from equipoise.bench.stage import set_up
from equipoise.recipe import Recipe


def loss_curves(
    recipe: Recipe, contestants: Sequence[Contestant], steps: int, notify: Callable[[str], None]
) -> dict[str, list[float]]:
    """Let each make the same steps, one after the other.

    Returns:
        By name, the loss of each step as the Trainer logs it.
    """
    if recipe.model.lora is not None:
        lora = recipe.model.lora.model_copy(update={"dropout": 0.0})
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"lora": lora})})
    stage = set_up(recipe, steps, notify)
    curves = {}
    for contestant in contestants:
        notify(f"curves: {contestant.name}")
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-") as scratch:
            trainer: Any = build(contestant, stage, Path(scratch))
            losses = _Losses()
            trainer.add_callback(losses)
            trainer.args.logging_strategy, trainer.args.logging_steps = IntervalStrategy.STEPS, 1
            trainer.state.logging_steps = 1
            trainer.train()
            curves[contestant.name] = losses.seen
    return curves


class _Losses(TrainerCallback):
    """Keeps the loss of every step; a Trainer of ours keeps the newest log entries alone."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.seen.append(logs["loss"])


def against_the_first(curves: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """By name: the losses, and the largest difference to the first one's at any step."""
    reference = next(iter(curves.values()))
    return {
        name: {
            "losses": list(losses),
            "largest_difference": max(abs(one - other) for one, other in zip(losses, reference, strict=True)),
        }
        for name, losses in curves.items()
    }
