"""Task weights under DeepSpeed beside one process, on CPUs. DeepSpeed is no dependency: `pip install deepspeed` first.

usage: deepspeed_equal.py [STAGE,...]; prints, for each ZeRO stage, the largest relative difference between what two
processes and one put down of each step: loss, tokens, losses and weights of tasks.

accelerate is told that this CPU is an accelerator (`_pretended.py`), and DeepSpeed not to compile its shared-memory
collectives; the engine, its gradients and its steps are the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["DS_ACCELERATOR"] = "cpu"

import torch
from transformers import TrainingArguments

import tiny
from equipoise import Coordination, TaskWeighting
from processes import _fsdp_trainer
from processes._pretended import pretend

TASKS = "abc"


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "task"}


def train(out: Path, stage: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
        pretend()
    settings = {
        "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True, "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "train_batch_size": "auto",
    }  # fmt: skip
    rows = [{name: value.float() if value.is_floating_point() else value for name, value in row.items()}
            for row in _fsdp_trainer.samples()]  # fmt: skip
    trainer = _fsdp_trainer.InOrder(
        model=tiny.lora_llava(torch.float32, dropout=0.0),
        args=TrainingArguments(
            output_dir=str(out), use_cpu=world == 1, learning_rate=1e-3, max_steps=_fsdp_trainer.STEPS,
            lr_scheduler_type="constant", per_device_train_batch_size=_fsdp_trainer.BATCH // world, logging_steps=1,
            gradient_accumulation_steps=_fsdp_trainer.ACCUMULATION, save_strategy="no", report_to="none",
            remove_unused_columns=False, dataloader_pin_memory=False, label_names=["labels"], disable_tqdm=True,
            **({"deepspeed": settings} if world > 1 else {}),
        ),
        train_dataset=[{**row, "task": TASKS[number % 3]} for number, row in enumerate(rows)],
        data_collator=collate,
        coordination=Coordination("constant", measure=False),
        tasks=TaskWeighting("dwa"),
    )  # fmt: skip
    assert trainer.is_deepspeed_enabled == (world > 1)
    trainer.train()
    if world > 1:
        assert "DeepSpeedEngine" in type(trainer.model_wrapped).__name__
        torch.distributed.barrier()
        sys.stdout.flush()
        os._exit(0)  # a gloo process that ends inside its group may abort


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def main(stages: list[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for stage in (0, *stages):
            folder = Path(scratch) / str(stage)
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if stage else []
            command = [sys.executable, *torchrun, __file__, "--train", str(folder), str(stage)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if not stage:
                continue
            worst = max(
                abs(one[name] - two[name]) / max(abs(one[name]), 1e-12)
                for one, two in zip(lines(Path(scratch) / "0"), lines(folder), strict=True)
                for name in two
            )
            print(f"ZeRO-{stage}, 2 processes, {_fsdp_trainer.STEPS} steps: {worst:.1e}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main([int(stage) for stage in (sys.argv[1] if sys.argv[1:] else "2,3").split(",")])
