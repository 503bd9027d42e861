"""Sonic Pi's sounds: which become samples, of what kind, and that a series lies in one split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from equipoise.data.audio import load_audio
from equipoise.data.readers import sonic_pi
from equipoise.data.readers.files import watching
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import SONIC_PI

SPLITS = ("train", "validation", "test")
QUESTION = "Which of these kinds of sound is it: drum, tabla, electronic, loop, glitch?"


def write(root: Path, *names: str) -> Path:
    folder = root / "usr/share/sonic-pi/samples"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        soundfile.write(folder / name, np.zeros((4_410, 2)), 44_100)
    return root


def everything(root: Path | None) -> dict[str, list[Sample | Flaw]]:
    return {split: list(sonic_pi.read("t", split, root)) for split in SPLITS}


def refused(split: str, path: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list(sonic_pi.read("t", split, path))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_kind_is_the_prefix_merged_where_it_is_one_of_those_listed(tmp_path):
    kinds = {
        "bd_808": "drum", "sn_dub": "drum", "drum_roll": "drum", "tabla_na": "tabla", "elec_pop": "electronic",
        "loop_amen": "loop", "glitch_perc1": "glitch", "mehackit_robot1": "glitch",
    }  # fmt: skip
    write(tmp_path, *(f"{name}.flac" for name in kinds), "misc_burp.flac", "drums.flac", "bd_not.wav", "bass.flac")
    samples = {row.id: row for rows in everything(tmp_path).values() for row in rows}
    assert {name: sample.references for name, sample in samples.items()} == {n: (kind,) for n, kind in kinds.items()}
    sample = samples["elec_pop"]
    assert [(turn.role, turn.text) for turn in sample.turns] == [("user", QUESTION), ("assistant", "electronic")]
    assert (sample.task, sample.images) == ("t", ())
    assert load_audio(sample.audios[0], 16_000).shape == (1_600,)


def test_a_series_is_in_one_split_and_a_kind_with_four_in_all(tmp_path):
    series = [f"tabla_{letter}" for letter in "abcdefgh"]
    write(tmp_path, *(f"{name}{ending}.flac" for name in series for ending in ("", "1", "23", "_soft", "2_hard")))
    found = everything(tmp_path)
    owners = {split: {sonic_pi.series(row.id) for row in rows} for split, rows in found.items()}
    assert {split: len(names) for split, names in owners.items()} == {"train": 5, "validation": 1, "test": 2}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 25, "validation": 5, "test": 10}
    assert set().union(*owners.values()) == set(series)


def test_a_link_may_not_lead_out_of_the_folder(tmp_path):
    write(tmp_path / "elsewhere", "bd_808.flac")
    write(tmp_path / "own")
    (tmp_path / "own" / sonic_pi.SOUNDS / "bd_808.flac").symlink_to(
        tmp_path / "elsewhere" / sonic_pi.SOUNDS / "bd_808.flac"
    )
    [flaw] = everything(tmp_path / "own")["train"]
    assert flaw.reason == "audio lies outside the task's folder and its media_roots"


def test_the_folder_is_watched(tmp_path):
    write(tmp_path, "bd_808.flac")
    with watching() as opened:
        list(sonic_pi.read("t", "train", tmp_path))
    assert opened == {tmp_path / sonic_pi.SOUNDS}


def test_what_is_not_there_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
    assert refused("dev", tmp_path) == "task t: sonic_pi has no split 'dev'; allowed: train, validation, test"
    assert refused("train", tmp_path) == f"task t: {tmp_path / sonic_pi.SOUNDS} holds no sounds of Sonic Pi's"
    assert "equipoise data fetch sonic_pi" in refused("train")


@pytest.mark.slow  # reads the real data, where it was fetched
def test_the_real_sounds():
    if not SONIC_PI.folder.is_dir():
        pytest.skip("equipoise data fetch sonic_pi")
    rows = everything(None)
    assert {split: len(found) for split, found in rows.items()} == {"train": 76, "validation": 19, "test": 29}
    for found in rows.values():
        assert len(Counter(row.references[0] for row in found)) == 5
        assert all(len(load_audio(row.audios[0])) > 0 for row in found)
