"""A recipe: one YAML file that says what to tune, on which tasks, how balanced. The one place where settings live.

Here is what a recipe holds; its section `balance` is in `equipoise.recipe_balance`, what single values may be in
`equipoise.recipe_values`; `equipoise.recipe_reading` makes one from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, TypeAdapter, field_validator, model_validator

from equipoise.recipe_balance import Balance, Coordination, CoTBal, TaskWeighting
from equipoise.recipe_values import (
    DEVICES,
    PACKAGED,
    SCHEDULES,
    SECTION,
    Count,
    Estimator,
    MetricName,
    ReaderName,
    Real,
    Seed,
    WeighterName,
)

#: Everything that speaks of recipes imports it from here.
__all__ = [
    "PACKAGED",
    "SCHEDULES",
    "Balance",
    "CoTBal",
    "Coordination",
    "Data",
    "Estimator",
    "Lora",
    "MetricName",
    "Model",
    "ReaderName",
    "Recipe",
    "Task",
    "TaskWeighting",
    "Train",
    "WeighterName",
]


class _Section(BaseModel):
    model_config = SECTION


class Lora(_Section):
    """LoRA on the LLM's linear layers (peft); the paper's settings by default.

    Attributes:
        rank: r, the width of each pair of matrices.
        alpha: updates are scaled by alpha / rank.
        dropout: of what enters the matrices, while training.
        dora: weights decomposed into length and direction (DoRA).
        merge: when training has ended, also save the whole model with LoRA's updates added to its weights.
    """

    rank: Count = 16
    alpha: Count = 32
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.05
    dora: bool = False
    merge: bool = False


class Model(_Section):
    """What to tune.

    Attributes:
        path: a folder, a hub id, or `embedded:` and a name (`smol-vlm`, `smol-qformer`, `smol-flamingo`,
            `smol-audio`, `smol-audio-base`, `smol-audio-vision`).
        lora: adapters on the LLM; null trains no adapter.
        train: module name to `full` or `frozen`; what is not named follows the family (the connector is trained, the
            towers are frozen, the LLM learns by LoRA alone).
        modules: module name to a regular expression over parameter names, over the family's division.
        dtype: of the weights; `auto` as they are saved.
        trust_remote_code: whether code that lies beside the weights may run.
    """

    path: str
    lora: Lora | None = Lora()
    train: dict[str, Literal["full", "frozen"]] = {}
    modules: dict[str, str] = {}
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False

    @property
    def is_embedded(self) -> bool:
        return self.path.startswith("embedded:")


class Task(_Section):
    """One task of the mixture.

    Attributes:
        name: used in file names and tables.
        reader: which dataset format.
        path: its folder or file; readers of packaged data need none.
        media_roots: folders outside of `path` in which its images and clips may lie as well, links followed; data
            can name files below `path` alone without any.
        metric: how answers are scored; null for a task that is trained on but not scored.
        train, validation, test: the split that this part is read from; null leaves the part out.
        hold_out: part name to its number of samples, drawn from the training split, for data that comes without splits.
        merge: questions about the same images become one conversation, shuffled (training part alone).
        max_turns: most questions of a merged conversation; images with more make several conversations.
        max_train, max_validation, max_test: at most so many samples, drawn by the recipe's seed; merged conversations
            count as one.
        fraction: the share of the training part that is trained on, at least 1 sample, drawn by the recipe's seed from
            what the settings above leave; a smaller share is part of a larger one. All of it when null.
        test_of: the task whose further test set this is (train: null); Delta I averages the test sets of a task.
        response_format: the instruction below each question; the reader's own when null, none when empty.
        weight: how often the task is drawn, relative to the others, where `data.order` is `weight`.
        options: further arguments of the reader.
        max_new_tokens: longest answer when generating.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    reader: ReaderName
    path: Path | None = None
    media_roots: list[Path] = []
    metric: MetricName | None = None
    train: str | None = "train"
    validation: str | None = "validation"
    test: str | None = "test"
    hold_out: dict[Literal["validation", "test"], Count] = {}
    merge: bool = False
    max_turns: Count | None = None
    max_train: Count | None = None
    max_validation: Count | None = None
    max_test: Count | None = None
    fraction: Annotated[Real, Field(gt=0, le=1)] | None = None
    test_of: str | None = None
    response_format: str | None = None
    weight: Annotated[Real, Field(gt=0)] = 1.0
    options: dict[str, Any] = {}
    max_new_tokens: Count = 16

    @field_validator("name")
    @classmethod
    def _name_is_a_file_anywhere(cls, name: str) -> str:
        if name.partition(".")[0].upper() in DEVICES or name.endswith("."):
            raise ValueError(f"found {name!r}; predictions go to a file of this name, which Windows does not allow")
        return name

    @model_validator(mode="after")
    def _turns_are_of_merged_conversations(self) -> Self:
        if self.max_turns is not None and not self.merge:
            raise ValueError("max_turns: set merge: true with it; it bounds merged conversations")
        return self

    @model_validator(mode="after")
    def _further_test_sets_are_not_trained_on(self) -> Self:
        if self.test_of is not None and self.train is not None:
            raise ValueError("test_of: set train: null with it; it is for further test sets of another task")
        return self

    def share_of(self, count: int) -> int:
        """How many of `count` training samples `fraction` leaves."""
        return count if self.fraction is None else max(1, round(self.fraction * count))


class Data(_Section):
    """How samples are read, and how tasks share the batches.

    Attributes:
        on_error: what a sample that cannot be read does: `raise` ends the run with a line, `skip` leaves it out and
            counts it. To know beforehand, `skip` opens every image and clip once.
        order: `size`: all samples shuffled together; `weight`: each sample's task is drawn by `tasks.weight`, a task
            begins anew when it is used up; `sequential`: one task after the other.
        batches: `mixed`: as they come; `every-modality`: each batch holds images, audio and text as the mixture does,
            so that every module learns in every step on every process; `one-modality`: each batch holds samples of
            one kind, which pads less.
        group_by_length: samples of about the same length share a batch, which pads less.
    """

    on_error: Literal["raise", "skip"] = "raise"
    order: Literal["size", "weight", "sequential"] = "size"
    batches: Literal["mixed", "every-modality", "one-modality"] = "mixed"
    group_by_length: bool = False


class Train(_Section):
    """How to train; passed on to transformers' TrainingArguments.

    Attributes:
        learning_rate: one number, or module name to number.
        epochs: passes over the training part, where `max_steps` is null.
        max_steps: optimizer steps; when null, `epochs` decides.
        batch_size: samples a device in one micro-batch; an optimizer step sees `gradient_accumulation` of them.
        gradient_accumulation: micro-batches of one optimizer step.
        max_length: longest sequence in tokens, images and audio included; null for no bound.
        too_long: what a longer sample does: `raise` ends the run with a line, `cut` loses its end.
        warmup: share of the steps over which the learning rate rises from 0.
        lr_scheduler: what the learning rate does after that.
        optimizer: by the names that transformers' `optim` takes.
        weight_decay: of the optimizer.
        max_grad_norm: gradients are scaled down to this norm; 0 for no bound.
        precision: `bf16`, `fp16`: autocast.
        gradient_checkpointing: activations are computed anew in the backward pass, which saves memory and takes time.
        supervised_logits: the LM head runs on supervised positions alone while training, where that changes nothing.
        feature_cache: megabytes of main memory in which a run keeps what frozen towers say of images and clips; 0 for
            none; when null, 256 on a CPU and none elsewhere.
        feature_folder: a folder where it is kept for other runs too, without bound; which one decides nothing.
        fused_lora: LoRA layers compute their term in one function; on a CPU with dropout masks of other random numbers.
        onednn: float32 linear layers multiply by oneDNN on a CPU, on processors where that is faster.
        eval_steps: validation loss each so many steps; null: only when `equipoise evaluate` runs.
        save_steps: checkpoint each so many steps; null: a tenth of the run.
        save_total_limit: how many checkpoints to keep; with 2 or more, a damaged newest one costs only some steps.
        report_to: what Trainer reports to besides the run directory: tensorboard, wandb, trackio.
        arguments: further fields of transformers' TrainingArguments, by its names (push_to_hub ...).
        threads: torch's CPU threads; null leaves them. A fixed number makes runs on one machine repeat exactly.
        seed: of the data's order, held-out parts, LoRA's first weights and dropout.
    """

    learning_rate: Annotated[Real, Field(ge=0)] | dict[str, Annotated[Real, Field(ge=0)]] = 1.0e-4
    epochs: Annotated[Real, Field(gt=0)] = 1.0
    max_steps: Count | None = None
    batch_size: Count = 16
    gradient_accumulation: Count = 1
    warmup: Annotated[Real, Field(ge=0, lt=1)] = 0.03
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    optimizer: str = "adamw_torch"
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[Real, Field(ge=0)] = 1.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    gradient_checkpointing: bool = False
    supervised_logits: bool = True
    feature_cache: Annotated[int, Field(ge=0, strict=True)] | None = None
    feature_folder: Path | None = None
    fused_lora: bool = True
    onednn: bool = True
    max_length: Count | None = None
    too_long: Literal["raise", "cut"] = "raise"
    eval_steps: Count | None = None
    save_steps: Count | None = None
    save_total_limit: Count = 2
    report_to: list[str] = []
    arguments: dict[str, Any] = {}
    threads: Count | None = None
    seed: Seed = 0


class Recipe(_Section):
    """A whole recipe."""

    model: Model
    tasks: Annotated[list[Task], Field(min_length=1)]
    data: Data = Data()
    balance: Balance = Balance()
    train: Train = Train()

    @field_validator("tasks")
    @classmethod
    def _names_differ(cls, tasks: list[Task]) -> list[Task]:
        seen: set[str] = set()
        for task in tasks:
            if task.name.lower() in seen:  # some file systems take them for one
                raise ValueError(f"two tasks are named {task.name!r}; names must differ, and not in case alone")
            seen.add(task.name.lower())
        return tasks

    @field_validator("tasks")
    @classmethod
    def _further_test_sets_have_a_task(cls, tasks: list[Task]) -> list[Task]:
        trained = [task.name for task in tasks if task.train is not None]
        for task in tasks:
            if task.test_of is not None and task.test_of not in trained:
                raise ValueError(
                    f"{task.name}.test_of: found {task.test_of!r}; tasks that are trained on: {', '.join(trained)}"
                )
        return tasks

    @property
    def decisive(self) -> Recipe:
        """What decides how a run turns out: not where it keeps features of frozen towers (on a GPU, which encodes them
        batch by batch where it keeps none, a folder changes rounding)."""
        if self.train.feature_cache == 0:  # and with a folder there is a cache
            return self
        return self.model_copy(update={"train": self.train.model_copy(update={"feature_folder": None})})

    def to_yaml(self) -> str:
        """The whole recipe, defaults written out."""
        plain = TypeAdapter(Recipe).dump_python(self, mode="json")
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
