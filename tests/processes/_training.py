"""Trains a tiny LLaVA case by case, alone or in each process of torchrun; saves what every process recorded.

usage: _training.py CASES.json OUT

An optimizer step is eight samples in two micro-batches however many processes there are, and no mask is drawn, so that
one process and several should find the same. OUT/CASE/rank-R-of-N.json are the records, a step each; OUT/CASE/metrics
is the log folder; OUT/CASE/gradients-of-N.pt are those of the first two steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

import tiny
from equipoise import BalancedTrainer, Coordination, TaskWeighting, attach
from equipoise.training.processes import leave

SAMPLES, ACCUMULATION = 8, 2
#: By place in the step. Of two processes the second one has places 2, 3, 6 and 7, and never sees task `c`.
TASKS, SECOND = "cabacbba", (2, 3, 6, 7)
ANSWERS = (3, 1, 5, 2, 4, 1, 2, 6)


@dataclass
class Case:
    """One training.

    Attributes:
        coordination, tasks: settings; no task weights where `tasks` is None.
        awkward: in turn, in a step of four the second process has no supervised token, no image, and nobody has one.
        attached: a plain Trainer with `attach`.
    """

    name: str
    coordination: dict[str, Any]
    tasks: dict[str, Any] | None = field(default_factory=dict)
    dtype: str = "float64"
    steps: int = 6
    optimizer: str = "adamw_torch"
    learning_rate: float = 2e-3
    awkward: bool = False
    attached: bool = False


def sample(step: int, place: int, dtype: torch.dtype, awkward: bool) -> dict[str, Any]:
    row = tiny.llava_batch((ANSWERS[place],), dtype, seed=100 * (step % 20) + place)
    found = {name: value[0] for name, value in row.items()}
    kind = step % 4 if awkward else 0
    if kind == 1 and place in SECOND:
        found["labels"] = torch.full_like(found["labels"], -100)
    if kind == 3 or (kind == 2 and place in SECOND):
        found["input_ids"] = torch.where(found["input_ids"] == tiny.IMAGE_TOKEN, 7, found["input_ids"])
        del found["pixel_values"]
    return {**found, "task": TASKS[place]}


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(found["input_ids"]) for found in samples)
    batch = {}
    for name, filler in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
        rows = [found[name] for found in samples]
        batch[name] = torch.stack([nn.functional.pad(row, (0, longest - len(row)), value=filler) for row in rows])
    images = [found["pixel_values"] for found in samples if "pixel_values" in found]
    return {**batch, "pixel_values": torch.stack(images)} if images else batch


def load(dtype: torch.dtype) -> nn.Module:
    """LoRA that already does something on the LLM, the projector in full; no dropout."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=8, lora_dropout=0.0, target_modules=r".*language_model.*\.(q_proj|down_proj)")
    model = get_peft_model(tiny.llava(torch.float64, attention_dropout=0.0), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
        if "multi_modal_projector" in name:
            parameter.requires_grad_(True)
    return model.to(dtype).train()


class InOrder(Trainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class BalancedInOrder(BalancedTrainer, InOrder):
    pass


class Watch(TrainerCallback):
    """Keeps every step's record and the first steps' gradients."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.records: list[dict[str, float]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        if len(self.gradients) < 2:
            named = self.trainer.division.parameters()
            self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.records.append(dict(self.trainer._record))


def run(case: Case, out: Path) -> None:
    processes = PartialState(cpu=True).num_processes
    folder = out / case.name
    watch = Watch()
    dtype = getattr(torch, case.dtype)
    arguments = TrainingArguments(
        output_dir=str(folder / "metrics"), use_cpu=True, optim=case.optimizer, learning_rate=case.learning_rate,
        max_steps=case.steps, lr_scheduler_type="constant", max_grad_norm=1.0, save_strategy="no", report_to="none",
        per_device_train_batch_size=SAMPLES // ACCUMULATION // processes, gradient_accumulation_steps=ACCUMULATION,
        logging_steps=1, remove_unused_columns=False, dataloader_pin_memory=False, label_names=["labels"],
        disable_tqdm=True,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "model": load(dtype),
        "args": arguments,
        "data_collator": collate,
        "train_dataset": [
            sample(step, place, dtype, case.awkward) for step in range(case.steps) for place in range(SAMPLES)
        ],
    }
    balance: dict[str, Any] = {
        "coordination": Coordination(**case.coordination),
        "tasks": TaskWeighting(**case.tasks) if case.tasks is not None else None,
    }
    trainer: Any = attach(InOrder(**settings), **balance) if case.attached else BalancedInOrder(**settings, **balance)
    watch.trainer = trainer
    trainer.add_callback(watch)
    trainer.train()
    name = f"rank-{arguments.process_index}-of-{processes}.json"
    (folder / name).write_text(json.dumps(watch.records), encoding="utf-8")
    if arguments.process_index == 0:
        torch.save(watch.gradients, folder / f"gradients-of-{processes}.pt")
        (folder / "metrics" / "metrics.jsonl").rename(folder / f"metrics-of-{processes}.jsonl")


def main(cases: str, out: str) -> None:
    torch.set_num_threads(1)
    for settings in json.loads(Path(cases).read_text(encoding="utf-8")):
        run(Case(**settings), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave()
