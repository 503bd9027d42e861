"""One optimizer step on sixteen samples of three tasks; saves the gradients that the optimizer would see.

`main` is the step, alone or in each of several processes (see `processes/_forked_group.py`); WEIGHTING is the JSON of a
TaskWeighting, or null for the Trainer's own loss.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from equipoise import BalancedTrainer, Coordination, TaskWeighting
from equipoise.data.collate import Collator
from equipoise.data.sample import Sample, exchange
from equipoise.models import loading
from equipoise.recipe import Lora, Model

LONG = "a square that is red and deep blue and red again and then it is deep blue once more"
#: Task `c` is in the first four samples alone: absent from most micro-batches, and from one process of two.
TASKS = "cbacabbabbabaaba"
ANSWERS = {"a": ("red", "no"), "b": (LONG, f"{LONG} {LONG}"), "c": ("deep blue", "red and blue")}


def samples() -> list[Sample]:
    """Text alone, so that float64 is float64 all the way; very unequal numbers of tokens."""
    return [
        Sample(str(number), task, exchange("what colour is it", ANSWERS[task][number % 2]))
        for number, task in enumerate(TASKS)
    ]


def load(checkpoint: str, dtype: str) -> nn.Module:
    """The checkpoint with LoRA that already does something, and no dropout."""
    torch.manual_seed(0)
    model = loading.load(Model(path=checkpoint, lora=Lora(rank=4, alpha=8, dropout=0.0)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    if dtype == "float64":
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, LlamaRMSNorm):  # computes in float32 whatever comes in
                    setattr(parent, name, nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon))
        model.double()
    return model


class InOrder(BalancedTrainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class Gradients(TrainerCallback):
    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        named = getattr(model, "module", model).named_parameters()
        self.found = {name: p.grad.clone() for name, p in named if p.grad is not None}


def main(checkpoint: str, out: str, batch_size: str, accumulation: str, weighting: str, dtype: str) -> None:
    settings = json.loads(weighting)
    gradients = Gradients()
    trainer = InOrder(
        model=load(checkpoint, dtype),
        args=TrainingArguments(
            output_dir=f"{out}/checkpoints", use_cpu=True, optim="sgd", learning_rate=0.05, max_steps=1,
            lr_scheduler_type="constant", per_device_train_batch_size=int(batch_size), max_grad_norm=0.0,
            gradient_accumulation_steps=int(accumulation), logging_steps=1, save_strategy="no", report_to="none",
            remove_unused_columns=False, dataloader_pin_memory=False, label_names=["labels"], disable_tqdm=True,
        ),
        data_collator=Collator(loading.load_processor(Model(path=checkpoint))),
        train_dataset=samples(),
        coordination=Coordination("constant", measure=False),
        tasks=TaskWeighting(**settings) if settings is not None else None,
        log_folder=Path(out),
    )  # fmt: skip
    trainer.add_callback(gradients)
    trainer.train()
    torch.save(gradients.found, f"{out}/rank-{trainer.args.process_index}-of-{trainer.args.world_size}.pt")
