"""A BalancedTrainer in one process, or in several under accelerate's FSDP2 (`_pretended.py`).

usage: `processes` with `script: ["processes._fsdp_trainer", OUT, RESUME_FROM]` (see `_forked_group.py`); without
RESUME_FROM it starts anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch.distributed.tensor import DTensor
from torch.utils.data import SequentialSampler
from transformers import TrainingArguments

import tiny
from equipoise import BalancedTrainer, Coordination
from equipoise.errors import Elsewhere, PartitionError
from processes._pretended import pretend

BATCH, ACCUMULATION, STEPS = 4, 2, 4


class InOrder(BalancedTrainer):
    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def samples() -> list[dict[str, torch.Tensor]]:
    """Rows of one length, with an image each; every fifth supervises nothing."""
    count = BATCH * ACCUMULATION * STEPS
    batch = tiny.llava_batch([1 + number % 4 for number in range(count)], seed=5)
    batch["labels"][::5] = -100
    return [{name: value[row] for name, value in batch.items()} for row in range(count)]


def unlike(out: Path, fsdp: dict[str, Any]) -> None:
    """The second process has no image: all say so instead of waiting for each other."""
    rows = samples()

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        names = [name for name in batch[0] if name != "pixel_values" or os.environ["RANK"] == "0"]
        return {name: torch.stack([row[name] for row in batch]) for name in names}

    trainer = InOrder(
        model=tiny.lora_llava(dropout=0.0),
        args=TrainingArguments(
            output_dir=str(out / "unlike"), use_cpu=True, max_steps=1, report_to="none", save_strategy="no",
            remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True, fsdp=True, fsdp_config=fsdp,
        ),
        train_dataset=rows,
        data_collator=collate,
        coordination=Coordination("constant", measure=False),
    )  # fmt: skip
    kind = PartitionError if os.environ["RANK"] == "0" else Elsewhere
    with pytest.raises(kind, match="process 0 has pixel_values in its micro-batch and process 1 has not"):
        trainer.train()


def main(out: str, resume: str | None = None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        pretend()
    model = tiny.lora_llava(dropout=0.0)
    layers = ["LlamaDecoderLayer", "CLIPEncoderLayer"]
    fsdp = {"version": 2, "transformer_layer_cls_to_wrap": layers, "state_dict_type": "FULL_STATE_DICT"}
    trainer = InOrder(
        model=model,
        args=TrainingArguments(
            output_dir=f"{out}/checkpoints", use_cpu=True, learning_rate=1e-3, weight_decay=0.1, max_steps=STEPS,
            lr_scheduler_type="constant", per_device_train_batch_size=BATCH // world, max_grad_norm=1.0,
            gradient_accumulation_steps=ACCUMULATION, logging_steps=1, save_steps=2, report_to="none",
            remove_unused_columns=False, dataloader_pin_memory=False, label_names=["labels"], disable_tqdm=True,
            **({"fsdp": True, "fsdp_config": fsdp} if world > 1 else {}),
        ),
        train_dataset=samples(),
        coordination=Coordination("commit", estimator="exact", window=3),
        log_folder=Path(out),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    parameters = dict(trainer.model.named_parameters())
    if world > 1:
        assert trainer.is_fsdp_enabled
        assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
        held = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        assert held
        assert all(isinstance(parameter, DTensor) for parameter in held)
        assert {id(p) for p in held} == {id(p) for _, p in trainer.division.parameters()}
    whole = {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in parameters.items()}
    torch.save({name: p.detach() for name, p in whole.items()}, f"{out}/rank-{os.environ.get('RANK', '0')}.pt")
    if world > 1:
        unlike(Path(out), fsdp)
        torch.distributed.destroy_process_group()
