"""FreePats: which notes become samples, what is asked of them, and that no split hears another's instruments."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data._gus_patches import Recording, patch_file, tone
from equipoise.data.audio import load_audio
from equipoise.data.readers import freepats
from equipoise.data.readers.files import watching
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import FREEPATS

SPLITS = ("train", "validation", "test")
INSTRUMENTS = (
    "Which of these instruments is it: piano, chromatic percussion, organ, guitar, bass, strings, brass, reed, pipe, "
    "drums?"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(root: Path, name: str, *recordings: Recording) -> Path:
    file = root / "usr/share/midi/freepats" / f"{name}.pat"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(patch_file(recordings))
    return file


def everything(root: Path | None, kind: str) -> dict[str, list[Sample | Flaw]]:
    return {split: list(freepats.read("t", split, root, kind=kind)) for split in SPLITS}


def every(root: Path, kind: str) -> dict[str, Sample]:
    rows = [row for rows in everything(root, kind).values() for row in rows]
    assert [row for row in rows if isinstance(row, Flaw)] == []
    assert len({row.id for row in rows}) == len(rows)
    return {row.id: row for row in rows}


def answers(samples: dict[str, Sample], question: str) -> dict[str, str]:
    for sample in samples.values():
        user, assistant = sample.turns
        assert (user.role, user.text, assistant.role) == ("user", question, "assistant")
        assert sample.references == (assistant.text,)
        assert sample.task == "t"
    return {name: sample.references[0] for name, sample in samples.items()}


def refused(split: str, path: Path | None = None, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        list(freepats.read("t", split, path, **options))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_instrument_is_the_family_of_its_program(tmp_path):
    for name in ("Tone_000/007_Clavinet", "Tone_000/008_Celesta", "Tone_000/079_Ocarina", "Tone_000/080_Square_Wave"):
        write(tmp_path, name, tone(440, low=440_000, high=440_000))
    for name in ("Drum_000/035_Kick_1", "Tone_000/mine", "Tone_000/200_Mine", "Other/001_Piano"):
        write(tmp_path, name, tone(440))
    assert answers(every(tmp_path, "instrument"), INSTRUMENTS) == {
        "Tone_000/007_Clavinet/0+0": "piano",
        "Tone_000/008_Celesta/0+0": "chromatic percussion",
        "Tone_000/079_Ocarina/0+0": "pipe",
        "Drum_000/035_Kick_1/0+0": "drums",
    }


def test_the_group_is_of_several_families_and_organs_have_none(tmp_path):
    groups = {
        "Tone_000/000_Piano": "keys", "Tone_000/008_Celesta": "keys", "Tone_000/024_Guitar": "guitar",
        "Tone_000/032_Bass": "guitar", "Tone_000/040_Violin": "strings", "Tone_000/056_Trumpet": "wind",
        "Tone_000/064_Sax": "wind", "Tone_000/072_Piccolo": "wind", "Drum_000/035_Kick": "drums",
    }  # fmt: skip
    for name in (*groups, "Tone_000/016_Organ", "Tone_000/088_New_Age"):
        write(tmp_path, name, tone(440, low=440_000, high=440_000))
    question = "Which of these groups of instruments is it from: keys, guitar, strings, wind, drums?"
    found = answers(every(tmp_path, "group"), question)
    assert found == {f"{name}/0+0": group for name, group in groups.items()}


def test_notes_are_the_recorded_one_and_thirds_from_it_that_the_patch_plays_with_it(tmp_path):
    low, high = tone(220, low=1, high=300_000), tone(880, low=690_000, high=900_000)
    write(tmp_path, "Tone_000/040_Violin", low, high)
    samples = every(tmp_path, "instrument")
    assert list(samples) == [
        f"Tone_000/040_Violin/{note}" for note in ("0-12", "0-8", "0-4", "0+0", "0+4", "1-4", "1+0")
    ]
    clip = load_audio(samples["Tone_000/040_Violin/0-12"].audios[0], 16_000)
    assert clip.shape == (24_000,)
    assert np.argmax(np.abs(np.fft.rfft(clip))) / 1.5 == pytest.approx(110, abs=1)


def test_a_patch_with_many_notes_gives_twelve_from_low_to_high(tmp_path):
    write(tmp_path, "Tone_000/000_Piano", *(tone(55 * 2**octave) for octave in range(6)))
    names = [name.rpartition("/")[2] for name in every(tmp_path, "instrument")]
    assert len(names) == 12
    octaves = Counter(name[0] for name in names)
    assert min(octaves.values()) >= 1
    assert len(octaves) == 6


def test_the_pitch_is_low_middle_or_high_within_a_pianos_range(tmp_path):
    exact = {
        f: tone(f, low=round(f * 1000), high=round(f * 1000)) for f in (27, 28, 179.9, 180, 619.9, 620, 4_186, 4_187)
    }
    write(tmp_path, "Tone_000/088_New_Age", *exact.values())
    for name in ("Drum_000/035_Kick_1", "Tone_000/115_Wood_Block", "Tone_000/122_Seashore"):
        write(tmp_path, name, tone(440))
    assert answers(every(tmp_path, "pitch"), "How high is this note: low, middle or high?") == {
        f"Tone_000/088_New_Age/{number}+0": answer
        for number, answer in ((1, "low"), (2, "low"), (3, "middle"), (4, "middle"), (5, "high"), (6, "high"))
    }


def test_a_patch_is_in_one_split_for_both_kinds_and_a_family_of_four_in_all(tmp_path):
    for program in (16, 17, 18, 19, 24, 25, 26, 27, 28, 29, 30, 31):
        write(tmp_path, f"Tone_000/{program:03}_One", tone(440))
    split_of = {}
    for kind in freepats.KINDS:
        for split, rows in everything(tmp_path, kind).items():
            for name in {row.id.rpartition("/")[0] for row in rows}:
                assert split_of.setdefault(name, split) == split
    assert len(split_of) == 12
    organs = Counter(split for name, split in split_of.items() if int(name[9:12]) < 20)
    guitars = Counter(split for name, split in split_of.items() if int(name[9:12]) >= 24)
    assert organs == {"train": 2, "validation": 1, "test": 1}
    assert guitars == {"train": 5, "validation": 1, "test": 2}


def test_a_broken_patch_is_a_flaw_of_its_split_and_the_others_are_read(tmp_path):
    broken = write(tmp_path, "Tone_000/000_Piano")
    write(tmp_path, "Tone_000/024_Guitar", tone(440))
    silent = write(tmp_path, "Drum_000/035_Kick", Recording(bytes(100)))
    large = write(tmp_path, "Tone_000/040_Violin", tone(440))
    with large.open("ab") as file:
        file.truncate(freepats.LARGEST + 1)
    rows = everything(tmp_path, "instrument")["train"]
    assert {row for row in rows if isinstance(row, Flaw)} == {
        Flaw("Tone_000/000_Piano", str(broken), "it has no sample"),
        Flaw("Drum_000/035_Kick", str(silent), "0+0: a note of 440.0 Hz is silent"),
        Flaw("Tone_000/040_Violin", str(large), "it has more than 64,000,000 bytes"),
    }
    assert {row.id.rpartition("/")[0] for row in rows if isinstance(row, Sample)} == {"Tone_000/024_Guitar"}


def test_a_link_may_not_lead_out_of_the_folder(tmp_path):
    outside = write(tmp_path / "elsewhere", "Tone_000/000_Piano", tone(440))
    link = tmp_path / "own" / freepats.PATCHES / "Tone_000/000_Piano.pat"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    [flaw] = everything(tmp_path / "own", "instrument")["train"]
    assert flaw.reason == "patch lies outside the task's folder and its media_roots"


def test_what_it_reads_and_makes_is_watched(tmp_path, cache):
    file = write(tmp_path, "Tone_000/000_Piano", tone(440))
    with watching() as opened:
        samples = every(tmp_path, "instrument")
    assert {file, file.parent, file.parents[1] / "Drum_000"} < opened
    assert opened & {sample.audios[0] for sample in samples.values()}
    assert all(sample.audios[0].is_relative_to(cache / "media") for sample in samples.values())


def test_what_is_not_there_is_a_line(tmp_path):
    assert refused("dev", tmp_path) == "task t: freepats has no split 'dev'; allowed: train, validation, test"
    assert (
        refused("train", tmp_path, kind="key")
        == "task t: freepats has no kind 'key'; allowed: instrument, group, pitch"
    )
    assert refused("train", tmp_path) == f"task t: {tmp_path / freepats.PATCHES} holds no patches"
    assert "equipoise data fetch freepats" in refused("train")


@pytest.mark.slow  # reads the real data, where it was fetched
@pytest.mark.parametrize(
    ("kind", "sizes"), [("instrument", (394, 110, 163)), ("group", (370, 98, 152)), ("pitch", (516, 120, 243))]
)
def test_the_real_patches(kind, sizes, monkeypatch):
    monkeypatch.delenv("EQUIPOISE_CACHE")
    if not FREEPATS.folder.is_dir():
        pytest.skip("equipoise data fetch freepats")
    rows = everything(None, kind)
    assert [row for found in rows.values() for row in found if isinstance(row, Flaw)] == []
    assert tuple(map(len, rows.values())) == sizes
    for found in rows.values():
        counts = Counter(row.references[0] for row in found)
        assert len(counts) == {"instrument": 10, "group": 5, "pitch": 3}[kind]
