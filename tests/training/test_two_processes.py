"""Two processes, one of which finds no image or clip in its part of a batch: no hang, and the step of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from models import zoo
from training import _two_processes as training

# Which samples of each step have an image or a clip; a process takes two of the four.
STEPS = ((1, 1, 0, 0), (0, 0, 1, 1), (0, 0, 0, 0), (1, 0, 0, 1), (1, 1, 1, 1))
ANSWERS = ("red", "deep blue", "no", "a square that is red")


def make_data(folder: Path, kind: str) -> Path:
    folder.mkdir()
    rows = []
    for number, has in enumerate(flag for step in STEPS for flag in step):
        row = {"prompt": "what colour is it", "answer": ANSWERS[number % 4]}
        if has and kind == "image":
            row["image"] = f"{number}.png"
            Image.new("RGB", (16, 16), (12 * number, 200 - 7 * number, 90)).save(folder / row["image"])
        elif has:
            row["audio"] = f"{number}.wav"
            seconds = np.arange(16_000) / 16_000
            soundfile.write(folder / row["audio"], 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * seconds), 16_000)
        rows.append(json.dumps(row))
    (folder / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "family", ["llava", "salmonn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("blip2", "qwen2_audio"))]
)
def test_two_processes_make_the_steps_of_one(family, tmp_path, group):
    checkpoint = zoo.make(family, tmp_path / "checkpoint")
    data = make_data(tmp_path / "data", "audio" if family in {*zoo.AUDIO, "salmonn"} else "image")
    for processes, name in ((1, "one"), (2, "two")):
        (tmp_path / name).mkdir()
        group(processes, training.__name__, checkpoint, data, tmp_path / name, 4 // processes)
    one, first, second = (
        torch.load(tmp_path / file, weights_only=True)
        for file in ("one/rank-0-of-1.pt", "two/rank-0-of-2.pt", "two/rank-1-of-2.pt")
    )
    assert one.keys() == first.keys() == second.keys()
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert len(losses(tmp_path / "one")) == len(STEPS)
