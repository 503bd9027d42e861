"""The moments of a Trainer's step that only callbacks see, handed on to a balanced Trainer."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class StepEvents(TrainerCallback):
    """Forwards the moments of a step that only callbacks see."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._step_log.open(state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._begin_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._after_optimizer_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._end_step()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        self.trainer._step_log.validated(state.global_step, metrics or {})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._step_log.close()
