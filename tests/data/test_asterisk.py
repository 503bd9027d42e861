"""Asterisk's prompts: which become samples, with what transcript, in which split."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import soundfile

from equipoise.data.audio import load_audio
from equipoise.data.readers import asterisk
from equipoise.data.readers.files import watching
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import ASTERISK

SPLITS = ("train", "validation", "test")
PROMPTS = {f"prompt-{index}": f"Please press {index}, then pound." for index in range(60)}
SILENT = {"beep": "[this is a tone]", "digits/0": "(nothing)", "join": "<beep>"}


def read(split: str, path: Path | None = None) -> list[Sample]:
    """The samples of a split without flaws."""
    rows = list(asterisk.read("asr", split, path))
    assert [row for row in rows if isinstance(row, Flaw)] == []
    return rows


def refused(split: str, path: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list(asterisk.read("asr", split, path))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


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
    lines += ["; away: Commented out.", "pls-try-call-later: Please try your call again later."]
    return write(tmp_path, lines, [*PROMPTS, *SILENT, "; away", "no transcript"])


def test_every_spoken_prompt_with_a_clip_is_in_one_split(prompts):
    samples = [sample for split in SPLITS for sample in read(split, prompts)]
    assert {sample.id: sample.references for sample in samples} == {name: (text,) for name, text in PROMPTS.items()}
    assert len(samples) == len(PROMPTS)


def test_a_sample_asks_what_a_clip_says(prompts):
    sample = next(s for split in SPLITS for s in read(split, prompts) if s.id == "prompt-7")
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
    sizes = {split: len(read(split, prompts)) for split in SPLITS}
    assert sizes["train"] > 40
    assert min(sizes.values()) > 0
    [one] = read("test", prompts)[:1]
    alone = write(tmp_path / "alone", [f"{one.id}: {one.references[0]}"], [one.id])
    assert [sample.id for sample in read("test", alone)] == [one.id]


def test_prompts_that_sound_alike_share_a_split(tmp_path):
    lines = [f"{kind}-{n}: {t}" for n in range(30) for kind, t in (("a", f"Line {n}."), ("b", f"LINE  {n}"))]
    root = write(tmp_path, lines, [line.partition(":")[0] for line in lines])
    for split in SPLITS:
        names = [sample.id for sample in read(split, root)]
        assert {name[2:] for name in names if name[0] == "a"} == {name[2:] for name in names if name[0] == "b"}


def test_a_prompt_whose_clip_is_missing_is_a_flaw_of_its_split(prompts):
    [flawed, *rest] = read("validation", prompts)
    clip = flawed.audios[0]
    clip.unlink()
    rows = list(asterisk.read("asr", "validation", prompts))
    assert rows == [Flaw(flawed.id, str(clip), "audio does not exist"), *rest]
    assert read("test", prompts)


@pytest.mark.parametrize(
    ("line", "id", "reason"),
    [
        ("a line of something else", "a line of something else", "expected NAME: TRANSCRIPT"),
        ("silent: ", "silent", "transcript is empty; expected a text"),
    ],
)
def test_a_line_that_is_no_prompt_is_a_flaw(tmp_path, line, id, reason):
    root = write(tmp_path, [line], ["silent"])
    [flaw] = asterisk.read("asr", "train", root)
    assert (flaw.id, flaw.path) == (id, str(root / asterisk.TRANSCRIPTS))
    assert reason in flaw.reason


def test_a_name_may_not_lead_out_of_the_folder(tmp_path):
    root = write(tmp_path, ["../../outside: Please hold."], ["../../outside"])
    rows = [row for split in SPLITS for row in asterisk.read("asr", split, root)]
    [flaw] = rows
    assert flaw.reason == "audio lies outside the task's folder and its media_roots"


def test_the_transcripts_are_watched(prompts):
    with watching() as opened:
        read("train", prompts)
    assert opened == {prompts / asterisk.TRANSCRIPTS}


def test_an_unknown_split(prompts):
    assert refused("dev", prompts) == "task asr: asterisk has no split 'dev'; allowed: train, validation, test"
    assert asterisk.READER.splits == SPLITS
    assert not asterisk.READER.needs_path


BROKEN = {
    "missing": None,
    "no gzip": b"plain text",
    "cut short": gzip.compress(b"a: b", mtime=0)[:-4],
    "broken inside": gzip.compress(b"a: b", mtime=0)[:10] + b"\xff" * 20,
    "no UTF-8": gzip.compress(b"a: \xff", mtime=0),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_files_that_are_not_asterisks(tmp_path, content):
    source = write(tmp_path, [], []) / asterisk.TRANSCRIPTS
    source.unlink()
    if content is not None:
        source.write_bytes(content)
    assert refused("train", tmp_path).startswith(f"task asr: {source} cannot be read (")


def test_data_that_was_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
    assert "equipoise data fetch asterisk" in refused("train")


@pytest.mark.slow  # reads the real data, where it was fetched
def test_the_real_prompts():
    if not ASTERISK.folder.is_dir():
        pytest.skip("equipoise data fetch asterisk")
    splits = {split: read(split) for split in SPLITS}
    assert {split: len(samples) for split, samples in splits.items()} == {"train": 415, "validation": 49, "test": 76}
    said = {split: {sample.references for sample in samples} for split, samples in splits.items()}
    assert not said["train"] & (said["test"] | said["validation"])
    assert all(len(load_audio(sample.audios[0])) > 1000 for samples in splits.values() for sample in samples)
