"""A checkpoint's files of settings, spoiled; and images and clips of odd sizes given to whole processors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from hypothesis import strategies as st
from PIL import Image

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample, exchange
from equipoise.models import loading
from equipoise.recipe import Model
from fuzz._mutations import as_json, spoiled, spoiled_bytes
from fuzz._surface import Cases
from models import zoo

LARGE = 200_000  # bytes of a file beyond which it is spoiled in its bytes alone


def settings_files(folder: Path) -> Cases:
    root = zoo.make("llava", folder / "llava")
    files = sorted(file for file in root.iterdir() if file.suffix in (".json", ".jinja"))
    kept = {file.name: file.read_bytes() for file in files}
    settings = Model(path=str(root))

    def case(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        raw = spoiled_bytes(kept[name], 2)
        if name.endswith(".jinja") or len(kept[name]) > LARGE:
            return st.tuples(st.just(name), raw)
        template = json.loads(kept[name])
        return st.tuples(
            st.just(name), st.one_of(spoiled(template, 1).map(as_json), spoiled(template).map(as_json), raw)
        )

    def check(changed: tuple[str, bytes]) -> None:
        name, content = changed
        (root / name).write_bytes(content)
        try:
            processor = loading.load_processor(settings)
            loading.skeleton(settings)
            Collator(processor)([Sample("s", "own", exchange("what colour is it", "red"))])
        finally:
            (root / name).write_bytes(kept[name])

    return st.sampled_from(sorted(kept)).flatmap(case), check


def odd_samples(folder: Path) -> Cases:
    families = ("llava", "paligemma", "qwen2_audio", "blip2")
    collators = {
        family: Collator(loading.load_processor(Model(path=str(zoo.make(family, folder / family)))))
        for family in families
    }
    sides = st.sampled_from([1, 2, 3, 4, 5, 50, 199, 200, 1_000])

    def check(case: tuple[str, list[tuple[int, int]], list[int], str]) -> None:
        family, sizes, lengths, said = case
        images, audios = [], []
        for number, size in enumerate(sizes):
            images.append(folder / f"{number}.png")
            Image.new("RGB", size, "red").save(images[-1])
        for number, length in enumerate(lengths):
            audios.append(folder / f"{number}.wav")
            soundfile.write(audios[-1], np.zeros(length), 16_000)
        sample = Sample("s", "own", exchange(said, "red"), images=tuple(images), audios=tuple(audios))
        batch = collators[family]([sample, Sample("t", "own", exchange("what colour", "blue"))])
        assert batch["input_ids"].shape == batch["labels"].shape

    words = st.one_of(
        st.just("what colour is it"),
        st.sampled_from(["<image>", "</s>", "<pad>", "\0", "\u202e", "a" * 3_000, "\U0001f600", " "]),
    )
    images = st.lists(st.tuples(sides, sides), max_size=2)
    clips = st.lists(st.sampled_from([1, 2, 160, 400, 401, 16_000, 600_000]), max_size=1)
    return st.tuples(st.sampled_from(families), images, clips, words), check
