"""Who takes part in a benchmark: each is a way to train, and becomes a real Trainer whose own loop makes the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import transformers
from transformers import Trainer, TrainingArguments

from equipoise.bench.stage import Stage, copy_of
from equipoise.models import loading
from equipoise.recipe import Recipe, TaskWeighting, Train
from equipoise.training.run import build_trainer, training_arguments
from equipoise.training.run_directory import RunDirectory


@dataclass(frozen=True)
class Contestant:
    """One way to train.

    Attributes:
        name: in tables and files.
        kind: `ours` (BalancedTrainer), `transformers` (its Trainer) or `trl` (its SFTTrainer).
        modules: what differs from the recipe's `balance.modules`.
        weighter: of tasks.
        train: what differs from the recipe's `train`.
    """

    name: str
    kind: Literal["ours", "transformers", "trl"] = "ours"
    modules: Mapping[str, Any] = field(default_factory=dict)
    weighter: Literal["ew", "dwa"] = "ew"
    train: Mapping[str, Any] = field(default_factory=dict)

    @property
    def balances(self) -> bool:
        """Whether it measures or weighs anything."""
        return (self.kind == "ours" and dict(self.modules) != UNBALANCED) or self.weighter != "ew"

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as this contestant trains it."""
        balance = recipe.balance.model_copy(
            update={
                "modules": replace(recipe.balance.modules, **self.modules),
                "tasks": TaskWeighting(self.weighter),
            }
        )
        return recipe.model_copy(update={"balance": balance, "train": recipe.train.model_copy(update=dict(self.train))})


UNBALANCED = {"schedule": "constant", "measure": False}
#: The 1.00 of all ratios: our Trainer with all its fast paths and nothing to balance.
REFERENCE = Contestant("ew, constant", modules=UNBALANCED)
COORDINATED = (
    Contestant("commit-clr", modules={"schedule": "commit-clr"}),
    Contestant("commit-clr, exact", modules={"schedule": "commit-clr", "estimator": "exact"}),
    Contestant("commit", modules={"schedule": "commit"}),
    Contestant("commit, exact", modules={"schedule": "commit", "estimator": "exact"}),
)
DYNAMIC_WEIGHTS = Contestant("dwa, constant", modules=UNBALANCED, weighter="dwa")
#: Settings of `train` that make a step cheaper, to what switches each off.
FAST_PATHS = {"supervised_logits": False, "feature_cache": 0, "fused_lora": False, "onednn": False}


def line_up() -> list[Contestant]:
    """All who take part, the reference first; trl's Trainer where trl is installed."""
    slower = [
        Contestant(f"{REFERENCE.name}, no {name}", modules=UNBALANCED, train={name: off})
        for name, off in FAST_PATHS.items()
        if name in Train.model_fields
    ]
    others = [Contestant("transformers Trainer", "transformers")]
    if find_spec("trl") is not None:
        others.append(Contestant("trl SFTTrainer", "trl"))
    return [REFERENCE, *slower, *others, *COORDINATED]


def named(name: str) -> Contestant:
    """The contestant of that name."""
    return next(contestant for contestant in line_up() if contestant.name == name)


def build(contestant: Contestant, stage: Stage, folder: Path) -> Trainer:
    """A contestant's Trainer on a copy of the stage's model, ready for `train()`; it saves and reports nothing.

    All see the same samples in the same order.

    Args:
        folder: what the Trainer's logs need.
    """
    recipe = contestant.recipe(stage.recipe)
    run = RunDirectory(folder)
    model = copy_of(stage.model)
    trainer: Trainer
    if contestant.kind == "ours":
        trainer = build_trainer(recipe, run, model, stage.processor, stage.samples, None)
    else:
        arguments = training_arguments(recipe, run, len(stage.samples), validates=False)
        collator = loading.load_collator(recipe, stage.processor)
        if contestant.kind == "transformers":
            trainer = Trainer(
                model=model,
                args=TrainingArguments(**arguments),
                data_collator=collator,
                train_dataset=stage.samples,
                processing_class=stage.processor,
            )
        else:
            trainer = _sft(model, arguments, collator, stage)
        trainer.remove_callback(transformers.PrinterCallback)
    trainer.args.save_strategy = transformers.trainer_utils.SaveStrategy.NO
    trainer._get_train_sampler = lambda *_: stage.order  # type: ignore[method-assign,assignment]
    return trainer


def _sft(model: Any, arguments: Mapping[str, Any], collator: Any, stage: Stage) -> Trainer:
    """trl's SFTTrainer on our collator's batches. It takes tables alone, so its rows are the numbers of our samples."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_dict({"images": range(len(stage.samples))})  # a column of this name is left as it is

    def collate(numbers: Sequence[Mapping[str, int]]) -> Any:
        return collator([stage.samples[row["images"]] for row in numbers])

    return SFTTrainer(
        model=model,
        args=SFTConfig(**arguments, gradient_checkpointing=arguments["activation_checkpointing"], max_length=None),
        data_collator=collate,
        train_dataset=rows,
        processing_class=stage.processor,
    )
