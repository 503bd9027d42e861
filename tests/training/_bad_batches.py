"""Batches that go bad on the way to a Trainer, at steps that a test names; and a Trainer that is given them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, Trainer, TrainingArguments, set_seed

from equipoise.data.collate import IGNORED, Collator
from equipoise.data.readers import jsonl
from equipoise.data.sample import Sample
from equipoise.models import loading
from equipoise.recipe import Lora, Model
from equipoise.training.trainer import BalancedTrainer

Batch = dict[str, torch.Tensor]
#: Micro-batches of a step.
CUT = 2


def nan_pixel(batch: Batch) -> None:
    """One number of one image."""
    batch["pixel_values"][0, 0, 0, 0] = torch.nan


def infinite_pixels(batch: Batch) -> None:
    batch["pixel_values"].fill_(torch.inf)


def nothing_supervised(batch: Batch) -> None:
    batch["labels"].fill_(IGNORED)


class Spoiling:
    """A collator whose micro-batches of some steps are spoilt.

    Args:
        spoil: by step, counted from 1, what is done to its micro-batches.
        parts: which of them.
    """

    def __init__(
        self, checkpoint: Path, spoil: dict[int, Callable[[Batch], None]], parts: Sequence[int] = tuple(range(CUT))
    ):
        self.collator = Collator(AutoProcessor.from_pretrained(checkpoint))
        self.spoil = spoil
        self.parts = parts
        self.calls = 0

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        batch = self.collator(samples)
        step, part = self.calls // CUT + 1, self.calls % CUT
        self.calls += 1
        if step in self.spoil and part in self.parts:
            self.spoil[step](batch)
        return batch


def make(
    cls: type[Trainer],
    checkpoint: Path,
    dataset: Path,
    out: Path,
    spoil: dict[int, Callable[[Batch], None]],
    steps: int = 8,
    parts: Sequence[int] = tuple(range(CUT)),
    samples: Any = None,
    arguments: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """A Trainer of the tiny checkpoint, the same weights and data order each time."""
    set_seed(5)
    settings: dict[str, Any] = {
        "learning_rate": 3e-3, "logging_steps": 1, "save_strategy": "no", "lr_scheduler_type": "constant",
        "logging_nan_inf_filter": False, **(arguments or {}),
    }  # fmt: skip
    return cls(
        model=loading.load(Model(path=str(checkpoint), lora=Lora(rank=4, alpha=8, dropout=0.0))),
        args=TrainingArguments(
            output_dir=str(out), max_steps=steps, per_device_train_batch_size=2, gradient_accumulation_steps=CUT,
            report_to="none", remove_unused_columns=False, disable_tqdm=True, seed=5, dataloader_pin_memory=False,
            use_cpu=True, label_names=["labels"], **settings,
        ),
        data_collator=Spoiling(checkpoint, spoil, parts),
        train_dataset=samples or list(jsonl.read("colours", "train", dataset)),
        **options,
    )  # fmt: skip


class Following(BalancedTrainer):
    """Keeps a copy of what learns after each step."""

    def _end_step(self) -> None:
        if not hasattr(self, "after"):
            self.after: list[dict[str, torch.Tensor]] = []
        self.after.append(
            {name: value.detach().clone() for name, value in self.model.named_parameters() if value.requires_grad}
        )
        super()._end_step()


def strict_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log, read by the letter of JSON, which has no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def finite(values: dict[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values.values())


def sound(state: Any) -> bool:
    """Whether every number in containers is finite."""
    if isinstance(state, dict):
        return all(map(sound, state.values()))
    if isinstance(state, (list, tuple)):
        return all(map(sound, state))
    if isinstance(state, torch.Tensor):
        return bool(torch.isfinite(state).all())
    return not isinstance(state, float) or math.isfinite(state)


def two_tasks(dataset: Path) -> list[Sample]:
    """The training samples, every other one of another task."""
    samples = jsonl.read("colours", "train", dataset)
    return [replace(sample, task=f"task{number % 2}") for number, sample in enumerate(samples)]
