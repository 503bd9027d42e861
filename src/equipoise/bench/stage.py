"""What all contestants of a benchmark share: a recipe, its model, its samples, and the order in which they come."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn
from transformers import ProcessorMixin

from equipoise.data.mixture import Mixture
from equipoise.data.tasks import read_mixture
from equipoise.models import loading
from equipoise.recipe import Recipe
from equipoise.training.preflight import preflight
from equipoise.training.run import load_to_train

AnyModel = TypeVar("AnyModel", bound=nn.Module)


@dataclass
class Stage:
    """What contestants share.

    Attributes:
        recipe: with the benchmark's number of steps.
        model: contestants train copies of it that share its frozen weights.
        order: [steps x samples of a step], numbers of samples.
    """

    recipe: Recipe
    model: Any
    processor: ProcessorMixin
    samples: Mixture
    order: list[int]


def set_up(recipe: Recipe, steps: int, notify: Callable[[str], None], repeat: int | None = None) -> Stage:
    """Load a recipe's model and data for so many steps.

    The learning rate stays constant from the first step on, so that every step moves the model and can be measured;
    nothing is validated, saved or reported on the way.

    Args:
        repeat: draw the samples of so many steps alone, and those again and again; all of the recipe's when None.

    Raises:
        RecipeError, DataError, PartitionError: the recipe cannot be run.
    """
    changes = {
        "max_steps": steps, "warmup": 0.0, "lr_scheduler": "constant", "eval_steps": None, "save_steps": None,
        "report_to": [],
    }  # fmt: skip
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
    samples = read_mixture(recipe, "train", notify)
    preflight(recipe)
    model = load_to_train(recipe)
    return Stage(recipe, model, loading.load_processor(recipe.model), samples, _order(recipe, samples, steps, repeat))


def copy_of(model: AnyModel) -> AnyModel:
    """A model of its own, but for the frozen weights, which it shares with the original."""
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, memo=frozen)


def _order(recipe: Recipe, samples: Mixture, steps: int, repeat: int | None) -> list[int]:
    """As the recipe's training draws them, epoch after epoch, or the beginning of that again and again."""
    size, together = recipe.train.batch_size, recipe.train.gradient_accumulation
    weights = [task.weight for task in recipe.tasks if task.name in samples.parts]
    drawn: list[int] = []
    epoch = 0
    different = min(steps, repeat or steps) * size * together
    while len(drawn) < different:
        drawn += samples.order(recipe.data, weights, size, together, recipe.train.seed, epoch).tolist()
        epoch += 1
    return [drawn[number % different] for number in range(steps * size * together)]
