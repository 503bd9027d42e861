"""Asterisk's prompts: which become samples, with what transcript, in which split."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import soundfile

from equipoise.data.audio import load_audio
from equipoise.data.readers import asterisk
from equipoise.errors import DataError
from equipoise.packages import ASTERISK

SPLITS = ("train", "validation", "test")
PROMPTS = {f"prompt-{index}": f"Please press {index}, then pound." for index in range(60)}
SILENT = {"beep": "[this is a tone]", "digits/0": "(nothing)", "join": "<beep>"}


def write(root: Path, lines: list[str], clips: list[str]) -> Path:
    """The two packages' layout, with clips of 0.1 seconds."""
    transcripts = root / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    transcripts.parent.mkdir(parents=True)
    transcripts.write_bytes(gzip.compress("\n".join(lines).encode()))
    for clip in clips:
        path = root / "usr/share/asterisk/sounds/en_US_f_Allison" / f"{clip}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(800), 8000)
    return root


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    lines = ["; Core Asterisk Sounds in English", "", *(f"{n}: {t}" for n, t in {**PROMPTS, **SILENT}.items())]
    lines += ["; away: Commented out.", "no separator", "gone: There is no such clip."]
    return write(tmp_path, lines, [*PROMPTS, *SILENT, "; away", "no separator", "no transcript"])


def test_every_spoken_prompt_with_a_clip_is_in_one_split(prompts):
    samples = [sample for split in SPLITS for sample in asterisk.read("asr", split, path=prompts)]
    assert {sample.id: sample.references for sample in samples} == {name: (text,) for name, text in PROMPTS.items()}
    assert len(samples) == len(PROMPTS)


def test_a_sample_asks_what_a_clip_says(prompts):
    sample = next(s for split in SPLITS for s in asterisk.read("asr", split, path=prompts) if s.id == "prompt-7")
    assert sample.task == "asr"
    assert [(turn.role, turn.text) for turn in sample.turns] == [
        ("user", "What is said?"),
        ("assistant", "Please press 7, then pound."),
    ]
    assert sample.images == ()
    [clip] = sample.audios
    assert clip.name == "prompt-7.wav"
    assert load_audio(clip, 16_000).shape == (1600,)


def test_most_prompts_are_for_training_and_the_split_is_the_same_whatever_else_there_is(prompts, tmp_path):
    sizes = {split: len(asterisk.read("asr", split, path=prompts)) for split in SPLITS}
    assert sizes["train"] > 40
    assert min(sizes.values()) > 0
    [one] = asterisk.read("asr", "test", path=prompts)[:1]
    alone = write(tmp_path / "alone", [f"{one.id}: {one.references[0]}"], [one.id])
    assert [sample.id for sample in asterisk.read("asr", "test", path=alone)] == [one.id]


def test_prompts_that_sound_alike_share_a_split(tmp_path):
    lines = [f"{kind}-{n}: {t}" for n in range(30) for kind, t in (("a", f"Line {n}."), ("b", f"LINE  {n}"))]
    root = write(tmp_path, lines, [line.partition(":")[0] for line in lines])
    for split in SPLITS:
        names = [sample.id for sample in asterisk.read("asr", split, path=root)]
        assert {name[2:] for name in names if name[0] == "a"} == {name[2:] for name in names if name[0] == "b"}


def test_an_unknown_split(prompts):
    with pytest.raises(DataError, match="task asr: asterisk has no split 'dev'; allowed: train, validation, test"):
        asterisk.read("asr", "dev", path=prompts)


BROKEN = [None, b"plain text", gzip.compress(b"a: b", mtime=0)[:-4], gzip.compress(b"a: \xff", mtime=0)]


@pytest.mark.parametrize("content", BROKEN, ids=["missing", "no gzip", "cut short", "no UTF-8"])
def test_files_that_are_not_asterisks(tmp_path, content):
    source = write(tmp_path, [], []) / asterisk.TRANSCRIPTS
    source.unlink()
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(DataError, match=r"core-sounds-en\.txt\.gz cannot be read") as caught:
        asterisk.read("asr", "train", path=tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_data_that_was_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="equipoise data fetch asterisk"):
        asterisk.read("asr", "train")


@pytest.mark.slow  # reads the real data, where it was fetched
def test_the_real_prompts():
    if not ASTERISK.folder.is_dir():
        pytest.skip("equipoise data fetch asterisk")
    splits = {split: asterisk.read("asr", split) for split in SPLITS}
    assert {split: len(samples) for split, samples in splits.items()} == {"train": 415, "validation": 49, "test": 76}
    said = {split: {sample.references for sample in samples} for split, samples in splits.items()}
    assert not said["train"] & (said["test"] | said["validation"])
    assert all(len(load_audio(sample.audios[0])) > 1000 for samples in splits.values() for sample in samples)
