"""BalancedTrainer, and the few overrides that it shares with a Trainer given to attach().

The overrides call a `Coordinator` at four moments of transformers' own step and write `metrics.jsonl`; the loop, mixed
precision, clipping, schedulers and checkpoints stay transformers'.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from equipoise.errors import DivergenceError, PartitionError, RecipeError
from equipoise.models.families import family_of
from equipoise.modules.coordinator import Coordinator, Record
from equipoise.modules.forward import GROUPS, IGNORED
from equipoise.modules.partition import partition, split_param_groups
from equipoise.modules.processes import ALONE, Processes
from equipoise.modules.shards import is_divided
from equipoise.recipe import Coordination, TaskWeighting
from equipoise.training import parallel
from equipoise.training.fast_paths import FastPaths, fast_paths
from equipoise.training.fused_head import is_sft, weighing
from equipoise.training.processes import TorchProcesses
from equipoise.training.run_directory import RunDirectory
from equipoise.training.sound_numbers import SoundNumbers
from equipoise.training.step_events import StepEvents
from equipoise.training.step_log import StepLog
from equipoise.training.supervised_logits import SupervisedPlaces, agree, head_of, may_keep, token_mean
from equipoise.training.task_weighting import (
    TASK,
    TASK_IDS,
    TaskBalance,
    TaskCollator,
    build,
    require_weightable,
    tasks_of,
)

logger = logging.getLogger(__name__)
STATE_FILE = "balance_state.pt"


class BalanceMixin(SoundNumbers):
    """What a Trainer needs to be balanced. `_begin_balance` must run once before `train`."""

    coordination: Coordination
    coordinator: Coordinator | None
    _processes: Processes

    def _begin_balance(
        self,
        coordination: Coordination,
        modules: Mapping[str, str] | None,
        learning_rates: Mapping[str, float] | None,
        log_folder: Path | None,
        tasks: TaskWeighting | None,
        supervised_logits: bool,
        fast_paths: FastPaths,
    ) -> None:
        parallel.check(self, coordination)
        if coordination.amplification is None and (self.args.bf16 or self.args.fp16):
            coordination = replace(coordination, amplification=8.0)
        for note in coordination.warnings() if self.is_world_process_zero() else ():
            logger.warning(note)
        assert self.model is not None
        self.coordination = coordination
        self.division = partition(self.model, modules, family_of(self.model).paths(self.model))
        self.coordinator = None
        self._divided = False
        self._supervised_logits = supervised_logits
        self._places_agree: bool | None = None
        self._fast_paths = fast_paths
        self._learning_rates = dict(learning_rates or {})
        for name in self._learning_rates:
            if name not in self.division.trainable:
                raise PartitionError(
                    f"learning_rate.{name}: no module that learns has this name; "
                    f"there are {', '.join(self.division.trainable)}"
                )
        if coordination.schedule != "constant":
            self.division.require_balance(f"schedule {coordination.schedule}")
        self._processes = TorchProcesses(self.args.device) if self.accelerator.num_processes > 1 else ALONE
        self._run = RunDirectory(log_folder or Path(self.args.output_dir or "trainer_output"))
        self._step_log = StepLog(self._run, writes=self.is_world_process_zero())
        self._record: Record = {}
        self._loss: torch.Tensor | float = 0.0
        self._tasks: TaskBalance | None = None
        self._task_settings = tasks
        if tasks is not None:
            self._begin_tasks(tasks)
        self.add_callback(StepEvents(self))

    def _begin_tasks(self, settings: TaskWeighting) -> None:
        """Weight the loss by task: the Trainer's own loss function and label smoothing know nothing of tasks."""
        theirs = {"compute_loss_func": self.compute_loss_func, "label_smoothing_factor": self.label_smoother}
        for name, value in theirs.items():
            if value is not None and value is not token_mean:
                raise RecipeError(
                    f"tasks are weighted in a loss of ours; this Trainer has a {name} of its own: leave it out"
                )
        require_weightable(self)
        names = tasks_of(self.train_dataset)
        build(settings, names)  # what is wrong with the settings shows before training begins
        self._task_names = names
        self.data_collator = TaskCollator(self.data_collator, names)
        if is_sft(self):
            self.loss_is_scaled_for_ga = True  # divided by the step's tokens, whatever loss the model itself has
        else:
            self.compute_loss_func = self._task_loss

    # ------------------------------------------------------------------ transformers' hooks

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, by faster ways meanwhile; measurements and evaluations go them too."""
        with self._fast_paths.on(self.model):
            try:
                result = super().train(*args, **kwargs)
                self._require_sound_weights()
                return result
            except DivergenceError:
                self._step_log.end(self.state.global_step, self._why_ended)
                raise
            finally:
                self._step_log.close()
                if self.coordinator is not None:
                    self.coordinator.close()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As Trainer's, with its parameter groups divided by module."""
        optimizer = super().create_optimizer(model)
        if self.coordinator is None:
            if self.lr_scheduler is not None:
                raise PartitionError(
                    "the Trainer already has a learning-rate scheduler, which counts parameter groups; give it the "
                    "optimizer alone and let lr_scheduler_type name the scheduler"
                )
            assert self.model is not None
            raw = getattr(optimizer, "optimizer", optimizer)
            split_param_groups(raw, self.division, self._learning_rates)
            steps = self.state.max_steps or None
            self.coordinator = Coordinator(self.model, raw, self.coordination, self.division, steps, self._processes)
            if self._task_settings is not None:
                self._tasks = TaskBalance(self._task_settings, self._task_names, steps)
        return optimizer

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's; whatever wrapped or divided the model, its parameters are followed."""
        prepared = super()._prepare_for_training(*args, **kwargs)
        self._follow_model()
        return prepared

    def _follow_model(self) -> None:
        if self.coordinator is None:
            raise PartitionError(
                "the optimizer is not of the Trainer's making: leave `optimizer` out of the DeepSpeed configuration"
            )
        assert self.model is not None
        self.coordinator.follow(self.model)
        self._divided = parallel.is_divided_model(self)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        """As Trainer's; with tasks, what the loss is divided by is their weighted number of tokens."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._tasks is not None and batches:
            count = self._tasks.begin_step(batches, self._summed)
            self._supervised = self._tasks.tokens
            return batches, count
        return batches, self._count_supervised(batches, count, self._summed)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """As Trainer's; around it, the coordinator sees the batch and, at a step's end, prepares the update."""
        assert self.coordinator is not None
        inputs = dict(self._prepare_inputs(inputs))
        ids = inputs.pop(TASK_IDS, None)
        if self._divided:
            parallel.require_alike(inputs, self._processes)
        groups = {GROUPS: ids} if ids is not None and ids.dim() == 1 else {}  # by sample
        with self._step_log.counted_as_balance():
            self.coordinator.observe({**inputs, **groups})
        with self._tasks.training_on(ids) if self._tasks is not None else nullcontext():
            loss = super().training_step(model, inputs, num_items_in_batch)
        self._loss = self._loss + loss.detach()  # read once a step: each reading waits for the device
        if self.accelerator.sync_gradients:
            scaler = getattr(self.accelerator, "scaler", None)
            with self._step_log.counted_as_balance():
                self.coordinator.before_step(scaler.get_scale() if scaler is not None else None, self._supervises)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As Trainer's; text alone through a frozen LLM teaches nothing, which must not stop the run."""
        inputs = {name: value for name, value in inputs.items() if name != TASK_IDS}
        fused = self._tasks is not None and self._tasks.trains and self.compute_loss_func is None
        with ExitStack() as inside:
            if fused:
                inside.enter_context(weighing(model, partial(self._task_log_probs, inputs["labels"])))
            elif not return_outputs and self._keeps_places(model, inputs):
                places = SupervisedPlaces(inputs["labels"])
                inputs["labels"] = places.labels
                inside.enter_context(places.kept(head_of(model)))
                if self._tasks is not None:
                    self._tasks.lay_out(places.rows_N, places.columns_N)
            result: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, *outputs = result if return_outputs else (result,)
        if torch.is_grad_enabled() and num_items_in_batch is None and isinstance(inputs.get("labels"), torch.Tensor):
            # A mean over no token is 0 / 0.
            known = (inputs["labels"][..., 1:] != IGNORED).any() | torch.isfinite(loss)
            loss = torch.where(known, loss, torch.zeros_like(loss))
        if torch.is_grad_enabled() and not loss.requires_grad:
            learning: Any = next(self.division.parameters())[1]
            loss = loss + 0.0 * (learning.to_local() if is_divided(learning) else learning).sum()
        return (loss, *outputs) if return_outputs else loss

    def _keeps_places(self, model: Any, inputs: Mapping[str, Any]) -> bool:
        """Whether this micro-batch trains on the logits of its supervised positions alone."""
        if not self._supervised_logits or not torch.is_grad_enabled():
            return False
        if getattr(super().compute_loss, "__func__", None) is not Trainer.compute_loss:
            return False  # another Trainer's, which may do anything with logits
        if not may_keep(self, (token_mean, self._task_loss), inputs):
            return False
        if self._places_agree is None:  # tried on the first batch that supervises anything
            theirs: Any = super().compute_loss
            agrees = agree(model, inputs, theirs, self.accelerator.mixed_precision)
            # One process that disagrees is enough: all must make the same forwards.
            against, in_favour = self._summed(torch.tensor([float(agrees is False), float(agrees is True)])).tolist()
            if against or in_favour:
                self._places_agree = not against
        return bool(self._places_agree)

    def _task_loss(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """The loss of one micro-batch: weighted by task while training, the plain mean over tokens while evaluating."""
        if self._tasks is None or not self._tasks.trains:
            return token_mean(outputs, labels, num_items_in_batch)
        assert isinstance(num_items_in_batch, torch.Tensor)
        return self._share(self._tasks.loss(outputs.logits, labels, num_items_in_batch))

    def _task_log_probs(self, labels: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """What a fused head says, such that the loss made of it is that of `_task_loss`."""
        assert self._tasks is not None
        return self._share(self._tasks.weigh(log_probs, labels))

    def _share(self, loss: torch.Tensor) -> torch.Tensor:
        """Gradients are averaged over processes, and the denominator counts the tokens of all. Trainer does the rest
        itself where it averages tokens across devices."""
        return loss if self.args.average_tokens_across_devices else loss * self.accelerator.num_processes

    def _summed(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over processes."""
        return self.accelerator.reduce(value.to(self.accelerator.device), "sum")

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        if self._task_settings is not None and TASK not in columns:
            columns.append(TASK)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, with the newest balance entries beside the loss, so that `report_to` gets them too."""
        if "loss" in logs and self.coordinator is not None:
            found = {name: value for name, value in self._record.items() if math.isfinite(value)}
            logs = {**self._without_unmade(logs, self.coordinator.refusal), **found}
        super().log(logs, start_time)

    def _save_rng_state(self, output_dir: str) -> None:
        # Before trainer_state.json, whose presence marks a checkpoint as whole.
        super()._save_rng_state(output_dir)
        assert self.coordinator is not None
        state = {"modules": self.coordinator.state_dict()}
        if self._tasks is not None:
            state["tasks"] = self._tasks.state_dict()
        if self.args.should_save:  # the same in all processes
            torch.save(state, Path(output_dir) / STATE_FILE)
        self.accelerator.wait_for_everyone()  # each has written its random states

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.coordinator is not None:
            self._follow_model()
            file = Path(checkpoint) / STATE_FILE
            if file.is_file():
                state = torch.load(file, weights_only=True)
                self.coordinator.load_state_dict(state["modules"])
                if self._tasks is not None and "tasks" in state:
                    self._tasks.load_state_dict(state["tasks"])
            else:
                logger.warning("%s has no %s: the balance starts anew", checkpoint, STATE_FILE)

    # ------------------------------------------------------------------ called by StepEvents

    def _begin_step(self) -> None:
        self._step_log.begin_step()
        self._loss = 0.0

    def _after_optimizer_step(self) -> None:
        assert self.coordinator is not None
        with self._step_log.counted_as_balance():
            self._record = self.coordinator.after_step(self.accelerator.optimizer_step_was_skipped)
        if self.is_deepspeed_enabled:  # it keeps the gradients to itself, and zeros would be taken for theirs
            self._record = {name: value for name, value in self._record.items() if not name.startswith("grad_norm")}

    def _end_step(self) -> None:
        assert self.coordinator is not None
        refusal = self.coordinator.refusal
        if self._tasks is not None:
            of_tasks = self._tasks.end_step(self._summed, made=refusal is None)
            self._record = {**self._tasks.named(self._record), **of_tasks}
        # Each process's share is scaled such that their mean is the loss over all tokens of the step.
        loss = float(self.accelerator.reduce(torch.as_tensor(self._loss), "mean"))
        self._step_log.end_step(self.state.global_step, self.state.epoch, loss, self._record, refusal)
        if (verdict := self.coordinator.guard.verdict) is not None:
            raise self._ended(verdict)


class BalancedTrainer(BalanceMixin):
    """A transformers Trainer whose modules learn at a coordinated pace.

    Args:
        model, args, ...: as for `transformers.Trainer`.
        coordination: how; `Coordination("commit")` when None.
        modules: module name to a regular expression over parameter names, where the family's division does not do.
        learning_rates: module name to base learning rate, over `args.learning_rate`.
        tasks: how tasks are weighted in the loss; each training sample names its task by a key or attribute `task`,
            a plain dataset by a column `task` of names. The loss is the Trainer's own when None.
        log_folder: where `metrics.jsonl` and `timings.jsonl` go; `args.output_dir` when None.
        supervised_logits: the LM head runs on supervised positions alone while training, where that changes nothing
            (docs/speed.md).
        feature_cache: megabytes of main memory for what frozen towers say of images and clips (docs/speed.md); 0 for
            none; when None, 256 on a CPU and none elsewhere.
        feature_folder: a folder where it is kept for other runs too, without bound.
        fused_lora: LoRA layers compute their term in one function while training; on a CPU with dropout masks of other
            random numbers than torch's (docs/speed.md).
        onednn: frozen layers multiply by oneDNN while training, on processors where that is faster (docs/speed.md).

    Raises:
        PartitionError: a model with nothing to balance.
    """

    def __init__(
        self,
        *args: Any,
        coordination: Coordination | None = None,
        modules: Mapping[str, str] | None = None,
        learning_rates: Mapping[str, float] | None = None,
        tasks: TaskWeighting | None = None,
        log_folder: Path | None = None,
        supervised_logits: bool = True,
        feature_cache: int | None = None,
        feature_folder: Path | None = None,
        fused_lora: bool = True,
        onednn: bool = True,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        assert self.model is not None
        forgets = not self.model_accepts_loss_kwargs or family_of(self.model).loss_from_logits
        if self.compute_loss_func is None and forgets:
            self.compute_loss_func = token_mean
        self._begin_balance(
            coordination or Coordination(), modules, learning_rates, log_folder, tasks,
            supervised_logits, fast_paths(self, feature_cache, feature_folder, fused_lora, onednn),
        )  # fmt: skip
