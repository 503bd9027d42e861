"""A BalancedTrainer under accelerate's FSDP2, on CPUs.

accelerate divides weights over accelerators alone. So that its own path (`Accelerator._prepare_fsdp2`, and what Trainer
does around it) runs here, it is told that this CPU is one: that, and sums instead of averages, which gloo lacks, is all
that is changed.

usage: torchrun ... _fsdp_trainer.py OUT SAVED [RESUME_FROM]; SAVED is accelerate's state_dict_type. Without torchrun:
one process, whole weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import accelerate.accelerator
import torch
import torch.distributed
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from torch.utils.data import SequentialSampler
from transformers import TrainingArguments

import tiny
from equipoise import BalancedTrainer, Coordination

BATCH, ACCUMULATION, STEPS = 4, 2, 6


class InOrder(BalancedTrainer):
    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def pretend_that_the_cpu_is_an_accelerator() -> None:
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)  # type: ignore[method-assign]

    def set_device(state: Any) -> None:
        state.device = torch.device("cpu")

    PartialState.set_device = set_device  # type: ignore[method-assign]
    prepare = accelerate.accelerator.fsdp2_prepare_model

    def prepare_with_sums(accelerator: Any, model: Any) -> Any:
        prepared = prepare(accelerator, model)
        prepared.set_force_sum_reduction_for_comms(True)
        return prepared

    accelerate.accelerator.fsdp2_prepare_model = prepare_with_sums


def samples() -> list[dict[str, torch.Tensor]]:
    """Rows of one length, with an image each; every fifth supervises nothing."""
    count = BATCH * ACCUMULATION * STEPS
    batch = tiny.llava_batch([1 + number % 4 for number in range(count)], seed=5)
    batch["labels"][::5] = -100
    return [{name: value[row] for name, value in batch.items()} for row in range(count)]


def main(out: str, saved: str, resume: str | None = None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        pretend_that_the_cpu_is_an_accelerator()
    model = tiny.lora_llava(dropout=0.0)
    layers = ["LlamaDecoderLayer", "CLIPEncoderLayer"]
    fsdp = {"version": 2, "transformer_layer_cls_to_wrap": layers, "state_dict_type": saved}
    trainer = InOrder(
        model=model,
        args=TrainingArguments(
            output_dir=f"{out}/checkpoints", use_cpu=True, learning_rate=1e-3, weight_decay=0.1, max_steps=STEPS,
            lr_scheduler_type="constant", per_device_train_batch_size=BATCH // world, max_grad_norm=1.0,
            gradient_accumulation_steps=ACCUMULATION, logging_steps=1, save_steps=3, report_to="none",
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
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
