"""The names that the documentation's snippets take for granted, made of a toy checkpoint: a reader has real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor, Trainer, TrainingArguments

from equipoise.data.collate import Collator
from equipoise.data.readers import jsonl
from equipoise.models import loading
from equipoise.recipe import Lora, Model


@pytest.fixture(scope="session")
def tuned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, as far as a snippet opens it."""
    folder = tmp_path_factory.mktemp("run")
    loading.load(Model(path=str(checkpoint), lora=Lora(rank=2))).save_pretrained(folder / "model")
    return folder


class Lazy(dict[str, Any]):
    """A namespace that makes a name when a snippet first asks for it."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]):
        super().__init__()
        self.makers = makers

    def __missing__(self, name: str) -> Any:
        if name not in self.makers:
            raise KeyError(name)
        self[name] = self.makers[name]()
        return self[name]


@pytest.fixture
def stand_ins(checkpoint: Path, dataset: Path, tuned: Path, tmp_path: Path, monkeypatch: Any) -> Lazy:
    """What snippets find: a working folder of their own, and the names that pages introduce in words."""
    monkeypatch.chdir(tmp_path)
    collate = Collator(AutoProcessor.from_pretrained(checkpoint))
    samples = list(jsonl.read("colours", "train", dataset))[:4]

    def model() -> Any:
        return loading.load(Model(path=str(checkpoint), lora=Lora(rank=2, dropout=0.0)))

    def arguments(name: str) -> TrainingArguments:
        return TrainingArguments(
            output_dir=str(tmp_path / name), max_steps=2, per_device_train_batch_size=2, report_to="none",
            save_strategy="no", disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False,
        )  # fmt: skip

    def trainer(name: str) -> Trainer:
        return Trainer(model=model(), args=arguments(name), train_dataset=samples, data_collator=collate)

    def plain_model() -> Any:
        plain = AutoModelForMultimodalLM.from_pretrained(checkpoint)
        for parameter_name, parameter in plain.named_parameters():
            parameter.requires_grad_("vision_tower" not in parameter_name)
        return plain

    Path("runs").mkdir()
    Path("runs/vqa").symlink_to(tuned)
    Image.new("RGB", (16, 16)).save("1.png")
    message = [{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "Nobody."}]
    Path("mllm_demo.json").write_text(json.dumps([{"messages": message, "images": ["1.png"]}]), encoding="utf-8")
    names = Lazy({})
    names.makers = {
        "trainer": lambda: trainer("attached"), "trainer_with_tasks": lambda: trainer("with_tasks"),
        "model": plain_model, "args": lambda: arguments("own"), "dataset": lambda: samples, "collate": lambda: collate,
        "optimizer": lambda: torch.optim.AdamW([p for p in names["model"].parameters() if p.requires_grad], lr=1e-4),
        "batches": lambda: [collate(samples[:2]), collate(samples[2:])],
        "BASE": lambda: str(checkpoint), "RUN": lambda: str(tuned),
    }  # fmt: skip
    return names
