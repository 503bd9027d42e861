"""The recipes of the embedded stacks on their real models, two steps each, through the command line.

The speech of the audio recipes is Debian's; tones stand in for it here. What a run leaves opens with transformers and
peft, after `import equipoise`, and says what it said in the run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from peft import PeftModel
from transformers import AutoModelForMultimodalLM

from equipoise.data.collate import Collator
from equipoise.data.readers import jsonl
from equipoise.models import loading
from equipoise.recipe_reading import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
LEARNS = {
    "smol-vlm": {"projector", "llm"},
    "smol-qformer": {"qformer", "llm"},
    "smol-flamingo": {"cross_attention", "llm"},
    "smol-audio": {"qformer", "llm"},
    "smol-audio-vision": {"projector", "qformer", "llm"},
}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of one of two pitches, from half a second to longer than the encoder's window."""
    folder = tmp_path_factory.mktemp("tones")
    for split in ("train", "validation", "test"):
        rows = []
        for number in range(4):
            pitch, seconds = (220, 1760)[number % 2], (0.5, 1.0, 3.0, 9.0)[number]
            wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(16_000 * seconds)) / 16_000)
            soundfile.write(folder / f"{split}{number}.wav", wave, 16_000)
            answer = ("low", "high")[number % 2]
            rows.append({"audio": f"{split}{number}.wav", "prompt": "Is the tone low or high?", "answer": answer})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


HEAVY = {"smol-qformer", "smol-flamingo"}  # build half a gigabyte each that no other test needs
SEES = {"smol-vlm", "smol-qformer", "smol-flamingo"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in LEARNS]
)
def test_a_recipe_ends_with_a_model_that_opens(name, tones, command, tmp_path):
    overrides = ["train.max_steps=2", "train.batch_size=4", "train.warmup=0", "balance.modules.every=1"]
    if name not in SEES:
        overrides += ["tasks.language.reader=jsonl", f"tasks.language.path={tones}", "tasks.language.options={}"]
    if name == "smol-audio-vision":
        overrides += ["tasks.vqa.max_train=4"]  # as many as tones, so that a batch has both
    run = tmp_path / "run"
    done = command("train", RECIPES / f"{name}.yaml", *overrides, "--out", run)
    assert done["status"] == 0, done["errors"][-2000:]
    rows = {row["module"]: row for row in json.loads((run / "modules.json").read_text())}
    assert {module for module, row in rows.items() if row["trainable"]} == LEARNS[name]
    assert rows["llm"]["kind"] == "LoRA"
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert sum(last[f"lr_factor/{module}"] for module in LEARNS[name]) == pytest.approx(len(LEARNS[name]))
    assert all(last[f"drift/{module}"] >= 0 for module in LEARNS[name])
    assert last["kappa"] > 0

    settings = load_recipe(RECIPES / f"{name}.yaml", overrides).model
    base = AutoModelForMultimodalLM.from_pretrained(loading.resolve(settings))
    samples = list(jsonl.read("t", "test", path=tones)) if name not in SEES else []
    collator = Collator(loading.load_processor(settings))
    ids = torch.tensor([[1, 4093, 198, 520, 9531, 198]])
    inputs = (
        {key: value for key, value in collator(samples[:2]).items() if key != "labels"}
        if samples
        else {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    )
    with torch.no_grad():
        untuned = base.eval()(**inputs).logits
        opened = PeftModel.from_pretrained(base, run / "model").eval()(**inputs).logits
        ours = loading.load_tuned(settings, run / "model")(**inputs).logits
    assert torch.equal(opened, ours)
    assert (opened - untuned).abs().max() > 1e-4
