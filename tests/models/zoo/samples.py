"""Pictures, clips and conversations for the toy checkpoints, and the same as a dataset of the `jsonl` reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from equipoise.data.sample import Sample, Turn

QUESTION = "what is it"
RATE = 16_000
COLOURS = ((220, 30, 30), (30, 30, 220), (30, 200, 60))
TONES = (300, 1_500, 4_000)  # Hz
SECONDS = (1.0, 0.6, 0.6)


def write(folder: Path) -> Path:
    """Three pictures `0.png` ..., each mostly of one colour, and three clips `0.wav` ..., each mostly of one tone."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(3)
    for number, (colour, tone, seconds) in enumerate(zip(COLOURS, TONES, SECONDS, strict=True)):
        pixels = np.array(colour) + generator.integers(-25, 26, (16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        time = np.arange(round(RATE * seconds)) / RATE
        wave = 0.4 * np.sin(2 * np.pi * tone * time) + 0.02 * generator.normal(size=len(time))
        soundfile.write(folder / f"{number}.wav", wave, RATE)
    return folder


def media(family: str, folder: Path, number: int) -> dict[str, tuple[Path, ...]]:
    """What a sample of this family shows or plays: a picture, a clip, or one of each."""
    from models import zoo

    image, audio = (folder / f"{number}.png",), (folder / f"{number}.wav",)
    if family in zoo.BOTH:
        return {"images": image, "audios": audio}
    return {"audios": audio} if family in zoo.AUDIO else {"images": image}


def sample(family: str, folder: Path, number: int | None, *texts: str, system: str | None = None) -> Sample:
    """A conversation whose turns alternate from the user's, about the media of this number; without any if None.

    One text is the answer to the common question.
    """
    if len(texts) == 1:
        texts = (QUESTION, *texts)
    turns = [Turn("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]
    first = [Turn("system", system)] if system is not None else []
    about = media(family, folder, number) if number is not None else {}
    return Sample(f"{number}", "task", (*first, *turns), references=(texts[-1],), **about)


def write_dataset(folder: Path, samples: list[Sample]) -> Path:
    """The samples as the training split of a dataset; their media must lie in the folder."""
    rows = []
    for one in samples:
        messages = [{"role": turn.role, "content": turn.text} for turn in one.turns]
        files = {"images": [path.name for path in one.images], "audios": [path.name for path in one.audios]}
        rows.append({"id": one.id, "messages": messages, **files})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder
