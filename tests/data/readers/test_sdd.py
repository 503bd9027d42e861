"""Song Describer: captions of songs, in the owners' CSV file, divided by artist."""

from __future__ import annotations

import hashlib

import pytest
from _published import FIXTURES, copied, edited, flaws, mistake, samples

from equipoise.data.audio import load_audio
from equipoise.data.readers.sdd import COLUMNS, READER
from equipoise.data.sample import Sample, exchange

ROOT = FIXTURES / "sdd"
PROMPT = "Listen to this music clip and describe the music."
WALTZ = ('A slow waltz, played on "toy" pianos', "Three toy pianos take turns")
DRUMS = ("Loud drums and a bass that growls",)
CHOIR = ("A choir hums without words",)
BANJO = ("A banjo gallops along", "Fast country picking with claps")
ORGAN = ("An organ fades out",)


def sample(id: str, clip: str, learnt: str, references: tuple[str, ...]) -> Sample:
    return Sample(id, "own", exchange(PROMPT, learnt), audios=(ROOT / "audio" / clip,), references=references)


EXPECTED = {
    "train": [
        sample("31", "01/1201.2min.mp3", WALTZ[0], WALTZ),
        sample("7", "01/1201.2min.mp3", WALTZ[1], WALTZ),
        sample("19", "15/1315.2min.mp3", DRUMS[0], DRUMS),
    ],
    "validation": [sample("1420", "20/1420.2min.mp3", CHOIR[0], CHOIR)],
    "test": [
        sample("1533", "33/1533.2min.mp3", BANJO[0], BANJO),
        sample("1534", "34/1534.2min.mp3", ORGAN[0], ORGAN),
    ],
}


@pytest.mark.parametrize("split", EXPECTED)
def test_each_split(split):
    assert samples(READER.read, split, ROOT) == EXPECTED[split]
    assert split in READER.splits


def test_the_clips_can_be_heard():
    assert all(len(load_audio(path)) > 4000 for split in EXPECTED for row in EXPECTED[split] for path in row.audios)


def test_an_archive_that_was_unpacked_into_a_folder_of_its_name(tmp_path):
    root = copied("sdd", tmp_path)
    (root / "audio").rename(root / "unpacked")
    (root / "audio").mkdir()
    (root / "unpacked").rename(root / "audio" / "audio")
    [row] = samples(READER.read, "validation", root)
    assert row.audios == (root / "audio/audio/20/1420.2min.mp3",)


def test_the_artist_decides_the_split(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "1.2min.mp3").touch()
    artists = [f"{number}" for number in range(60)]
    rows = [f"{n}-{k},{n}-{k},a song,True,1,{n},1,1.mp3,9.0" for n in artists for k in range(2)]
    (tmp_path / "song_describer.csv").write_text("\n".join([",".join(COLUMNS), *rows]), encoding="utf-8")
    parts = {split: [row.id for row in samples(READER.read, split, tmp_path)] for split in READER.splits}
    buckets = {n: int(hashlib.sha256(n.encode()).hexdigest()[:16], 16) % 10 for n in artists}
    assert parts == {
        "train": [f"{n}-{k}" for n in artists if buckets[n] < 8 for k in range(2)],
        "validation": [f"{n}-{k}" for n in artists if buckets[n] == 8 for k in range(2)],
        "test": [f"{n}-{k}" for n in artists if buckets[n] == 9 for k in range(2)],
    }
    assert all(parts.values())


@pytest.mark.parametrize(
    ("old", "new", "path", "reason"),
    [
        ("15/1315.mp3", "15/1316.mp3", "audio/15/1316.2min.mp3", "audio does not exist"),
        (
            "15/1315.mp3",
            "../../a.mp3",
            "audio/../../a.2min.mp3",
            "audio lies outside the task's folder and its media_roots",
        ),
        (DRUMS[0], "", "song_describer.csv", "caption is empty; expected a text"),
        ("15/1315.mp3,151.0", "", "song_describer.csv", "path is empty; expected a text"),
        (",15/1315.mp3,151.0", "", "song_describer.csv", "path is None; expected a text"),
    ],
)
def test_a_track_that_cannot_be_described(tmp_path, old, new, path, reason):
    root = copied("sdd", tmp_path)
    edited(root / "song_describer.csv", old, new)
    [flaw] = flaws(READER.read, "train", root)
    assert (flaw.id, flaw.path, flaw.reason) == ("19", str(root / path), reason)


def test_a_flaw_of_a_tested_track_has_the_tracks_id(tmp_path):
    root = copied("sdd", tmp_path)
    (root / "audio/33/1533.2min.mp3").unlink()
    assert [flaw.id for flaw in flaws(READER.read, "test", root)] == ["1533"]


def test_a_split_that_it_does_not_have_and_files_that_are_not_its(tmp_path):
    assert mistake(READER.read, "dev", ROOT) == "task own: sdd has no split 'dev'; allowed: train, validation, test"
    assert "song_describer.csv cannot be read" in mistake(READER.read, "train", tmp_path)
    (tmp_path / "song_describer.csv").write_text("track_id,caption\n", encoding="utf-8")
    assert "has no column 'caption_id'; found track_id, caption" in mistake(READER.read, "train", tmp_path)
