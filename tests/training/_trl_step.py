"""One optimizer step of trl's SFTTrainer with weighted tasks, over the samples of `_task_gradients`.

`main` is the step in each of several processes (see `processes/_forked_group.py`); it saves the gradients.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoProcessor
from trl import SFTConfig, SFTTrainer

from equipoise import Coordination, TaskWeighting, attach
from training import _task_gradients as step

PLAIN = Coordination("constant", measure=False)
WEIGHTS = {"a": 3.0, "b": 0.25, "c": 1.5}
PROMPT = "what colour is it"


def rows(kind: str) -> list[dict[str, Any]]:
    """The samples as trl's plain datasets have them: `text`, `prompt` and completion, or these with `images`."""
    made: list[dict[str, Any]] = []
    for sample in step.samples():
        answer = f" {sample.turns[1].text}"  # the space begins a token: prompt and completion do not share one
        if kind == "text":
            row: dict[str, Any] = {"text": PROMPT + answer}
        elif kind == "prompt":
            row = {"prompt": PROMPT, "completion": answer}
        else:
            image = Image.new("RGB", (16, 16), (30 + 10 * len(made), 40, 90))
            row = {"images": [image], "prompt": f"<image>{PROMPT}", "completion": answer}
        made.append({**row, "task": sample.task})
    return made


def sft(
    checkpoint: Path, out: Path, train_dataset: Dataset, batch: int = 4, accumulation: int = 4, **options: Any
) -> SFTTrainer:
    """A trainer as a user builds it, for one step; without `options`, trl's defaults in float32."""
    given = ("model", "processing_class", "compute_loss_func", "eval_dataset", "cls")
    arguments = {name: options.pop(name) for name in given if name in options}
    cls = arguments.pop("cls", SFTTrainer)
    if "model" not in arguments:
        arguments["model"] = step.load(str(checkpoint), "float32")
    return cls(
        **{"processing_class": AutoProcessor.from_pretrained(checkpoint), **arguments},
        train_dataset=train_dataset,
        args=SFTConfig(
            output_dir=str(out), use_cpu=True, max_steps=1, per_device_train_batch_size=batch, max_grad_norm=0.0,
            gradient_accumulation_steps=accumulation, logging_steps=1, save_strategy="no", report_to="none",
            disable_tqdm=True, dataloader_pin_memory=False, **{"bf16": False, **options},
        ),
    )  # fmt: skip


def gradients(trainer: SFTTrainer) -> dict[str, torch.Tensor]:
    """Train for the one step; its gradients, as the optimizer gets them."""
    gradients = step.Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    return gradients.found


def main(checkpoint: str, out: str, batch: str, accumulation: str, options: str) -> None:
    data = Dataset.from_list(rows("prompt"))
    trainer = sft(Path(checkpoint), Path(out), data, int(batch), int(accumulation), **json.loads(options))
    found = gradients(attach(trainer, PLAIN, tasks=TaskWeighting("fixed", weights=WEIGHTS)))
    torch.save(found, f"{out}/rank-{trainer.args.process_index}-of-{trainer.args.world_size}.pt")
