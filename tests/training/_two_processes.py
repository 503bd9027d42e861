"""Trains a toy checkpoint on batches that not every process finds an image or a clip in; saves what came out.

`main` is the training, alone or in each of several processes (see `processes/_forked_group.py`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import SequentialSampler
from transformers import TrainingArguments

from equipoise import BalancedTrainer, Coordination
from equipoise.data.collate import Collator
from equipoise.data.readers import jsonl
from equipoise.models import loading
from equipoise.recipe import Lora, Model


class InOrder(BalancedTrainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def without_dropout(model: torch.nn.Module) -> None:
    """Two processes draw other masks than one."""
    for module in model.modules():
        for name in ("p", "dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def main(checkpoint: str, data: str, out: str, batch_size: str) -> None:
    torch.manual_seed(0)
    settings = Model(path=checkpoint, lora=Lora(rank=4, alpha=8, dropout=0.0))
    model = loading.load(settings)
    without_dropout(model)
    samples = list(jsonl.read("mixed", "train", path=Path(data)))
    trainer = InOrder(
        model=model,
        args=TrainingArguments(
            output_dir=f"{out}/checkpoints", use_cpu=True, optim="sgd", learning_rate=0.05, max_steps=len(samples) // 4,
            lr_scheduler_type="constant", per_device_train_batch_size=int(batch_size), max_grad_norm=0.0,
            logging_steps=1, save_strategy="no", report_to="none", remove_unused_columns=False,
            dataloader_pin_memory=False, label_names=["labels"], disable_tqdm=True,
        ),
        data_collator=Collator(loading.load_processor(settings)),
        train_dataset=samples,
        coordination=Coordination("constant", measure=False),
        log_folder=Path(out),
    )  # fmt: skip
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    torch.save(trained, f"{out}/rank-{trainer.args.process_index}-of-{trainer.args.world_size}.pt")
