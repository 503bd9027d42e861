"""Folders saved by `datasets`: with splits or without, with images and audio inside, as they are stored."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
from _published import FIXTURES, copied, flaws, mistake, samples
from PIL import Image

from equipoise.data.audio import load_audio
from equipoise.data.readers.saved import READER
from equipoise.data.sample import Sample, exchange

ROOT = FIXTURES / "saved"
GOOD = {"prompt": "q", "answer": "a"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    return tmp_path / "cache"


def save(folder: Path, *rows: dict[str, Any], **columns: Any) -> Path:
    dataset = datasets.Dataset.from_list(list(rows))
    for name, feature in columns.items():
        dataset = dataset.cast_column(name, feature)
    dataset.save_to_disk(str(folder))
    return folder


def test_each_split_of_embedded_audio():
    rows = {split: samples(READER.read, split, ROOT) for split in ("train", "validation", "test")}
    assert {split: [(row.id, row.prompt, row.references) for row in rows[split]] for split in rows} == {
        "train": [
            ("t-1", "How high is the tone?", ("low",)),
            ("t-2", "How high is the tone?", ("low",)),
            ("t-3", "How high is the tone?", ("high",)),
        ],
        "validation": [("v-1", "How high is the tone?", ("low",)), ("v-2", "How high is the tone?", ("high",))],
        "test": [("e-1", "How high is the tone?", ("low",)), ("e-2", "How high is the tone?", ("high",))],
    }
    tones = [440, 480, 520, 480, 520, 500, 540]
    for tone, row in zip(tones, (row for part in rows.values() for row in part), strict=True):
        clip = load_audio(row.audios[0], 8000)
        assert np.allclose(clip, 0.3 * np.sin(2 * np.pi * tone * np.arange(800) / 8000), atol=1e-4)


def test_a_dataset_without_splits_is_for_training(tmp_path):
    folder = save(tmp_path / "own", {"id": "x", **GOOD, "references": ["a", "b"], "more": 1}, {"id": None, **GOOD})
    assert samples(READER.read, "train", folder) == [
        Sample("x", "own", exchange("q", "a"), references=("a", "b")),
        Sample("2", "own", exchange("q", "a"), references=("a",)),
    ]
    assert mistake(READER.read, "test", folder) == "task own: saved has no split 'test'; allowed: train"


def test_images_are_taken_as_they_are_stored(tmp_path, cache):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "blue").save(file, "JPEG")
    folder = save(
        tmp_path / "own", {**GOOD, "image": {"bytes": file.getvalue(), "path": "b.jpg"}}, image=datasets.Image()
    )
    [row] = samples(READER.read, "train", folder)
    assert row.images[0].read_bytes() == file.getvalue()
    assert row.images[0].is_relative_to(cache)


def test_paths_are_relative_to_the_folder(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(80), 8000)
    folder = save(
        tmp_path / "own", {**GOOD, "audio": "a.wav"}, {**GOOD, "audio": "../a.wav"}, {**GOOD, "audio": "b.wav"}
    )
    shutil.move(tmp_path / "a.wav", folder / "a.wav")
    (tmp_path / "a.wav").touch()
    rows = list(READER.read("own", "train", folder))
    assert rows[0].audios == (folder / "a.wav",)
    outside, missing = flaws(READER.read, "train", folder)
    assert (outside.id, outside.path, outside.reason) == (
        "2", str(folder / "../a.wav"), "audio lies outside the task's folder and its media_roots",
    )  # fmt: skip
    assert (missing.id, missing.path, missing.reason) == ("3", str(folder / "b.wav"), "audio does not exist")


def test_a_row_that_is_no_sample(tmp_path):
    folder = save(tmp_path / "own", {"prompt": "q", "answer": ""}, {"prompt": None, "answer": "a"})
    assert [(flaw.id, flaw.path, flaw.reason) for flaw in flaws(READER.read, "train", folder)] == [
        ("1", str(folder), "answer is empty; expected a text"),
        ("2", str(folder), "prompt is None; expected a text"),
    ]


def test_conversations_and_many_rows(tmp_path):
    messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    folder = save(tmp_path / "own", *({"messages": messages} for _ in range(150)))
    rows = samples(READER.read, "train", folder)
    assert [row.id for row in rows] == [str(number) for number in range(1, 151)]
    assert rows[-1].turns == exchange("u", "a")


def test_a_split_that_was_not_saved():
    assert mistake(READER.read, "dev", ROOT) == "task own: saved has no split 'dev'; allowed: train, validation, test"


def test_folders_that_datasets_did_not_save(tmp_path):
    assert "is no folder of datasets' save_to_disk (" in mistake(READER.read, "train", tmp_path / "none")
    assert "is no folder of datasets' save_to_disk (" in mistake(READER.read, "train", tmp_path)
    root = copied("saved", tmp_path)
    arrow = root / "train/data-00000-of-00001.arrow"
    arrow.write_bytes(arrow.read_bytes()[:-500])
    assert "is no folder of datasets' save_to_disk (" in mistake(READER.read, "train", root)


def test_the_files_that_samples_depend_on_are_noted(tmp_path, monkeypatch):
    noted: set[Path] = set()
    for module in ("saved", "table"):
        monkeypatch.setattr(f"equipoise.data.readers.{module}.note", lambda path: noted.add(path) or path)
    root = copied("saved", tmp_path)
    rows = samples(READER.read, "test", root)
    names = ("dataset_dict.json", "test/state.json", "test/dataset_info.json", "test/data-00000-of-00001.arrow")
    assert noted == {*(root / name for name in names), rows[0].audios[0]}
