"""What keeps a run from being lost: sealed checkpoints, and an end at the next step where SIGTERM asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from equipoise.stopping import Stopped, asked, finishing
from equipoise.training.checkpoints import SUMS, sums_of
from equipoise.training.run_directory import write_json
from equipoise.training.trainer import BalancedTrainer


class DurableTrainer(BalancedTrainer):
    """A BalancedTrainer whose checkpoints say of themselves whether they are whole, and that stops when it is asked to.

    Raises (by `train`):
        Stopped: it was asked to, and has written a checkpoint of the step it came to, and `stopped.json`.
    """

    def train(self, *args: Any, **kwargs: Any) -> Any:
        stop = _Stop(self)
        self.add_callback(stop)
        try:
            with finishing():
                result = super().train(*args, **kwargs)
        except RuntimeError as error:
            # The signal reached the DataLoader's workers too, and the step in hand will never have its batch.
            if asked() and "DataLoader worker" in str(error):
                raise Stopped(f"stopped within step {self.state.global_step + 1}") from error
            raise
        finally:
            self.remove_callback(stop)
        if not stop.stopping:
            return result
        step, steps = self.state.global_step, self.state.max_steps
        if self.is_world_process_zero():
            checkpoint = self._checkpoint().relative_to(self._run.path)
            write_json(self._run.stopped_file, {"step": step, "steps": steps, "checkpoint": checkpoint.as_posix()})
        raise Stopped(f"stopped after step {step} of {steps}, of which there is a checkpoint in {self._run.path}")

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As Trainer's; older checkpoints are deleted only when this one is whole."""
        checkpoint, limit = self._checkpoint(), self.args.save_total_limit
        if self.args.should_save:
            write_json(checkpoint / SUMS, {"files": None})
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each process has files in it
        if self.args.should_save:
            write_json(checkpoint / SUMS, {"files": sums_of(checkpoint)})
            rotate_checkpoints(str(checkpoint.parent), limit, self.state.best_model_checkpoint)

    def _checkpoint(self) -> Path:
        """Of the step just made."""
        return Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"


class _Stop(TrainerCallback):
    """Ends training after a step, with a checkpoint, once any of its processes was asked to."""

    def __init__(self, trainer: DurableTrainer):
        self.trainer = trainer
        self.stopping = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = asked()
        if self.trainer.accelerator.num_processes > 1:
            now = bool(self.trainer._summed(torch.tensor(float(now))))
        if now and state.global_step < state.max_steps:
            control.should_save = self.stopping = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stopping:  # not before: the checkpoint must not say that training is to stop
            control.should_training_stop = True
