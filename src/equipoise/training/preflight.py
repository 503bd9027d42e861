"""What is wrong with a recipe for its model, found before any weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from transformers import TrainingArguments
from transformers.integrations import integration_utils

from equipoise.errors import RecipeError
from equipoise.models import loading
from equipoise.modules.schedules import build_schedule
from equipoise.recipe import Recipe
from equipoise.training.task_weighting import build

# What `train.arguments` may not set: it stands elsewhere in the recipe, or the run directory depends on it.
OURS = frozenset(
    {
        "output_dir", "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size",
        "per_device_eval_batch_size", "gradient_accumulation_steps", "warmup_steps", "lr_scheduler_type", "optim",
        "weight_decay", "max_grad_norm", "bf16", "fp16", "activation_checkpointing", "activation_checkpointing_kwargs",
        "gradient_checkpointing", "gradient_checkpointing_kwargs", "logging_steps", "logging_nan_inf_filter",
        "eval_strategy", "eval_steps", "prediction_loss_only", "save_strategy", "save_steps", "save_total_limit",
        "remove_unused_columns", "dataloader_pin_memory", "label_names", "report_to", "disable_tqdm", "seed",
    }
)  # fmt: skip

TRACKERS = ("tensorboard", "wandb", "trackio")
"""Those that are known to get the log under its own names."""


def preflight(recipe: Recipe) -> None:
    """Find what is wrong with the recipe for its model from the model's structure alone, without weights.

    Raises:
        RecipeError, PartitionError: as `train`.
    """
    settings = recipe.balance.modules
    division = loading.divide(loading.skeleton(recipe.model), recipe.model)
    if settings.schedule != "constant":
        division.require_balance(f"schedule {settings.schedule}")
    names = list(division.trainable)
    if settings.reference is not None and settings.reference not in names:
        raise RecipeError(
            f"balance.modules.reference: found {settings.reference!r}; modules that learn: {', '.join(names)}"
        )
    if isinstance(recipe.train.learning_rate, dict):
        rates = recipe.train.learning_rate
        for name in names:
            if name not in rates:
                raise RecipeError(
                    f"train.learning_rate: module {name} is missing; modules that learn: {', '.join(names)}"
                )
        for name in rates:
            if name not in names:
                raise RecipeError(f"train.learning_rate.{name}: modules that learn are {', '.join(names)}")
    _check_trackers(recipe.train.report_to)
    build_schedule(settings, names, total_steps=1)
    build(recipe.balance.tasks, [task.name for task in recipe.tasks if task.train is not None])
    known = {field.name for field in fields(TrainingArguments)}
    for name in recipe.train.arguments:
        if name not in known or name in OURS:
            why = (
                "the recipe or the run directory decides it" if name in known else "TrainingArguments has no such field"
            )
            raise RecipeError(f"train.arguments.{name}: {why}")


def _check_trackers(names: Sequence[str]) -> None:
    for name in names:
        if name not in integration_utils.INTEGRATION_TO_CALLBACK:
            allowed = ", ".join(sorted(integration_utils.INTEGRATION_TO_CALLBACK))
            raise RecipeError(f"train.report_to: found {name!r}; allowed: {allowed}")
        # Not of all trackers does transformers say so: azure_ml hides behind mlflow.
        if name in TRACKERS and name not in integration_utils.get_available_reporting_integrations():
            raise RecipeError(f"train.report_to: {name} is not installed (pip install {name})")
