"""The training job: a recipe in, a run directory out. Resumable at any instant, bit for bit on one process."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from torch.utils.data import Sampler
from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments, set_seed

import equipoise
from equipoise.console import PlainConsole
from equipoise.data.collate import Collator
from equipoise.data.mixture import Mixture, MixtureSampler
from equipoise.data.tasks import left_out, read_mixture
from equipoise.disk import told
from equipoise.errors import DataError, DivergenceError, Elsewhere, RunError
from equipoise.evaluation.loss import token_loss
from equipoise.locks import lock
from equipoise.models import loading
from equipoise.models.adapters import learn_in_float32, merged
from equipoise.modules.partition import Partition
from equipoise.recipe import Data, Recipe
from equipoise.stopping import check
from equipoise.training.durable import DurableTrainer
from equipoise.training.preflight import preflight
from equipoise.training.processes import agreed, from_first, join, noticing_ends, started
from equipoise.training.progress import ProgressReport
from equipoise.training.run_directory import RunDirectory, write_atomically, write_json
from equipoise.training.saved_model import save_model, whole_model
from equipoise.training.task_weighting import TaskCollator

A_DAY = 24 * 60 * 60  # seconds that one process waits for another, which may index its data meanwhile

HISTORY = 1000
"""So many of the newest log entries a checkpoint holds: what transformers' model card reads."""


def train(
    recipe: Recipe,
    folder: Path,
    console: Console,
    resume: bool = False,
    name: str | None = None,
    kind: Callable[..., RunTrainer] | None = None,
) -> RunDirectory:
    """Tune a model as the recipe says; processes that a launcher started do it together, and the first one writes.

    Args:
        recipe: validated.
        folder: the run directory, made if it is not there.
        console: for the module table and the progress.
        resume: go on with the run that is there, from its newest whole checkpoint; start it if there is none.
        name: shown beside the progress; the schedule's name when None.
        kind: makes the trainer; `RunTrainer` when None.

    Returns:
        The finished run.

    Raises:
        RunError: the folder holds a run and `resume` is off, or another recipe's run, or one of another number of
            processes; or another command is at work in it; or one of the processes is lost.
        DiskError: it cannot be written.
        RecipeError, DataError, PartitionError: the recipe cannot be run; found before weights are loaded.
        DivergenceError: its numbers went bad.
        Stopped: the process was asked to stop (`equipoise.stopping`).
    """
    check()
    state = join(_on_cpu(recipe), timedelta(seconds=recipe.train.arguments.get("ddp_timeout", A_DAY)))
    run = RunDirectory(folder)
    with told(folder), ExitStack() as held:
        with agreed(state):
            if state.is_main_process and not run.done:
                _check_folder(run, recipe, resume, state.num_processes)  # and nothing is put into one that is not ours
                held.enter_context(lock(folder))
        console = console if state.is_main_process else PlainConsole(quiet=True)
        return _train(run, recipe, console, resume, name, state, kind or RunTrainer)


def _train(
    run: RunDirectory,
    recipe: Recipe,
    console: Console,
    resume: bool,
    name: str | None,
    state: PartialState,
    kind: Callable[..., RunTrainer],
) -> RunDirectory:
    first = state.is_main_process
    with agreed(state):
        if first:
            _check_folder(run, recipe, resume, state.num_processes)
    if from_first(state, lambda: run.done):
        console.print(f"{run.path}: already finished")
        return run
    if first:
        run.sweep()
    if state.num_processes > 1:
        with agreed(state):  # one process on each machine indexes the data, and the others find the index
            _ = _read(recipe, console) if state.is_local_main_process else None
    with agreed(state):
        trainer = _prepare(recipe, run, console, state, kind)
    report = ProgressReport(console, name or recipe.balance.modules.schedule)
    trainer.add_callback(report)

    checkpoint = from_first(state, lambda: run.newest_checkpoint(console.print) if resume else None)
    if checkpoint is not None and run.is_last(checkpoint):
        # Killed between its last checkpoint and its end. Trainer asks whether to stop only after one more step.
        if first:
            run.rewind(run.step_of(checkpoint))
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        if checkpoint is None and first:
            run.rewind(0)
        try:
            with noticing_ends(state):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        except DivergenceError as error:  # in all processes at once, for all decide by the same numbers
            ending = error if first else Elsewhere("the first process says why")
            ending.agreed = True
            raise ending from None
        except DataError as error:
            # One from a DataLoader's worker process carries that process's whole traceback, itself the last line.
            raise DataError(str(error).splitlines()[-1].removeprefix(f"{DataError.__module__}.DataError: ")) from error
        finally:
            report.close()
    tuned, processor = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    tuned = whole_model(tuned, trainer.division, first, partial(load_to_train, recipe))
    assert isinstance(processor, ProcessorMixin)
    with agreed(state):
        if first:
            save_model(run.model, tuned, processor)
            if recipe.model.lora is not None and recipe.model.lora.merge:
                save_model(run.merged, merged(tuned), processor)
            write_json(run.done_file, {"steps": run.last_step()})
    return run


def _read(recipe: Recipe, console: Console) -> tuple[Mixture, Mixture | None]:
    """The samples to train on and, where the recipe validates, those to validate on."""
    samples = read_mixture(recipe, "train", console.print)
    return samples, read_mixture(recipe, "validation", console.print) if recipe.train.eval_steps is not None else None


def _prepare(
    recipe: Recipe, run: RunDirectory, console: Console, state: PartialState, kind: Callable[..., RunTrainer]
) -> RunTrainer:
    """Read and check everything, write down what is trained, and load it."""
    samples, validation = _read(recipe, console)
    preflight(recipe)
    if state.is_main_process:
        write_atomically(run.recipe_file, recipe.to_yaml())
        write_json(run.path / "environment.json", {**environment(), "processes": state.num_processes})
        parts = {"train": samples, **({"validation": validation} if validation is not None else {})}
        found = {name: left_out(mixture) for name, mixture in parts.items()}
        write_json(run.data_file, found)
        print_left_out(found, console)
    model = load_to_train(recipe)
    trainer = build_trainer(recipe, run, model, loading.load_processor(recipe.model), samples, validation, kind)
    rows = module_rows(trainer.division, recipe)
    if state.is_main_process:
        write_json(run.path / "modules.json", rows)
    print_modules(rows, console)
    return trainer


def load_to_train(recipe: Recipe) -> PreTrainedModel | PeftModel:
    """The recipe's model as its training begins with it, on as many threads as the recipe says."""
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    # LoRA's initial weights are drawn here, so the seed comes before the model; Trainer seeds again for the data order.
    set_seed(recipe.train.seed)
    model = loading.load(recipe.model)
    if recipe.train.precision != "float32":
        learn_in_float32(model)
    return model


class RunTrainer(DurableTrainer):
    """A Trainer whose validation loss is the one that `equipoise evaluate` reports.

    Trainer's own is a mean of batch means, and its evaluation draws from the generator that dropout draws from.
    """

    recipe: Recipe

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        # All of it is in metrics.jsonl; here it would grow by some kilobytes a step, in memory and in every checkpoint.
        del self.state.log_history[:-HISTORY]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """As Trainer's where all samples are simply shuffled; else the mixture's."""
        settings = self.recipe.data
        if settings.model_copy(update={"on_error": "raise"}) == Data():
            return super()._get_train_sampler(train_dataset)
        mixture = train_dataset if train_dataset is not None else self.train_dataset
        assert isinstance(mixture, Mixture)
        weights = [task.weight for task in self.recipe.tasks if task.name in mixture.parts]
        together = self.args.world_size * self.args.gradient_accumulation_steps
        return MixtureSampler(
            mixture, settings, weights, self.args.per_device_train_batch_size, together, self.args.seed
        )

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        assert isinstance(dataset, Mixture)
        collator = self.data_collator.collator if isinstance(self.data_collator, TaskCollator) else self.data_collator
        assert isinstance(collator, Collator)
        assert self.model is not None
        loss = token_loss(self.model, collator, dataset, self.args.per_device_eval_batch_size, self._processes)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def training_arguments(recipe: Recipe, run: RunDirectory, samples: int, validates: bool) -> dict[str, Any]:
    """The fields of transformers' TrainingArguments that a run on so many samples sets.

    Args:
        validates: whether there is a validation part to measure the loss of.
    """
    settings = recipe.train
    rates = settings.learning_rate
    steps = settings.max_steps or _steps(samples, recipe)
    return dict(
        # A micro-batch of text alone leaves the encoder without gradients, on some processes or on all.
        **{"ddp_find_unused_parameters": True, **settings.arguments, "use_cpu": _on_cpu(recipe)},
        output_dir=str(run.checkpoints),
        learning_rate=rates if isinstance(rates, float | int) else max(rates.values()),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        warmup_steps=settings.warmup,
        lr_scheduler_type=settings.lr_scheduler,
        optim=settings.optimizer,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=settings.eval_steps,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=settings.save_steps or max(1, steps // 10),
        save_total_limit=settings.save_total_limit,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        label_names=["labels"],
        report_to=settings.report_to or "none",
        disable_tqdm=True,
        seed=settings.seed,
    )


def _on_cpu(recipe: Recipe) -> bool:
    has_accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu: bool = recipe.train.arguments.get("use_cpu", not has_accelerator)
    return on_cpu


def build_trainer(
    recipe: Recipe,
    run: RunDirectory,
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    samples: Mixture,
    validation: Mixture | None,
    kind: Callable[..., RunTrainer] = RunTrainer,
) -> RunTrainer:
    """The Trainer of a run; everything it writes goes below the run directory."""
    settings = recipe.train
    rates = settings.learning_rate
    arguments = TrainingArguments(**training_arguments(recipe, run, len(samples), validation is not None))
    trainer = kind(
        model=model,
        args=arguments,
        data_collator=loading.load_collator(recipe, processor),
        train_dataset=samples,
        eval_dataset=validation or None,
        processing_class=processor,
        coordination=recipe.balance.modules,
        modules=recipe.model.modules,
        learning_rates=rates if isinstance(rates, dict) else None,
        tasks=recipe.balance.tasks if weights_tasks(recipe) else None,
        log_folder=run.path,
        supervised_logits=settings.supervised_logits,
        feature_cache=settings.feature_cache,
        feature_folder=settings.feature_folder,
        fused_lora=settings.fused_lora,
        onednn=settings.onednn,
    )
    trainer.recipe = recipe
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def weights_tasks(recipe: Recipe) -> bool:
    """Whether there is anything to weight, or to see by task; one task with weight 1 keeps the model's own loss."""
    return sum(task.train is not None for task in recipe.tasks) > 1 or recipe.balance.tasks.weighter != "ew"


def module_rows(division: Partition, recipe: Recipe) -> list[dict[str, str | int | float]]:
    """The module table: a row a module."""
    rates = recipe.train.learning_rate
    return [
        {
            "module": name,
            "tensors": len(module.trainable),
            "trainable": module.size,
            "frozen": module.frozen,
            "kind": module.kind,
            "learning_rate": (rates[name] if isinstance(rates, dict) else rates) if module.trainable else 0.0,
        }
        for name, module in division.modules.items()
    ]


def print_modules(rows: list[dict[str, str | int | float]], console: Console) -> None:
    """Print the module table."""
    table = Table("module", "tensors", "trainable", "frozen", "learns by", "base LR")
    for row in rows:
        cells = (row["module"], row["tensors"], f"{row['trainable']:,}", f"{row['frozen']:,}", row["kind"])
        table.add_row(*map(str, cells), f"{row['learning_rate']:g}" if row["trainable"] else "-")
    console.print(table)


def print_left_out(found: dict[str, dict[str, Any]], console: Console) -> None:
    """Say which tasks have samples that cannot be read; nothing where none has."""
    for part, tasks in found.items():
        for name, counts in tasks.items():
            if counts["skipped"]:
                console.print(
                    f"{name}, {part}: {counts['skipped']} of {counts['samples'] + counts['skipped']} samples left out; "
                    f"the first: {counts['flaws'][0]}",
                    highlight=False, emoji=False, soft_wrap=True,
                )  # fmt: skip


def environment() -> dict[str, str]:
    """Versions and device, for the reader of a run directory."""
    return {
        "equipoise": equipoise.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu",
    }


def _check_folder(run: RunDirectory, recipe: Recipe, resume: bool, processes: int) -> None:
    if run.recipe_file.is_file():
        if not resume:
            raise RunError(f"{run.path} already holds a run; --resume goes on with it, --out names another folder")
        if run.recipe().decisive != recipe.decisive:
            raise RunError(f"{run.path} holds a run of another recipe; see its recipe.yaml, or name another folder")
        if not run.done and any(run.checkpoints.glob("checkpoint-*")):
            began = json.loads((run.path / "environment.json").read_text(encoding="utf-8")).get("processes", 1)
            if began != processes:
                raise RunError(
                    f"{run.path} was begun by {began} processes and found {processes}: its batches would be others; "
                    f"start {began}, or name another folder"
                )
    elif run.path.is_dir() and any(not file.name.startswith(".") for file in run.path.iterdir()):
        raise RunError(f"{run.path} is not empty and holds no run; --out names another folder")


def _steps(samples: int, recipe: Recipe) -> int:
    per_step = recipe.train.batch_size * recipe.train.gradient_accumulation * started()
    return max(1, round(recipe.train.epochs * samples / per_step))
