"""MACS: sentences of several people about one clip, in the owners' YAML file."""

from __future__ import annotations

import hashlib

import pytest
from _published import FIXTURES, copied, edited, flaws, mistake, samples

from equipoise.data.audio import load_audio
from equipoise.data.readers.macs import READER
from equipoise.data.sample import Sample, exchange

ROOT = FIXTURES / "macs"
AUDIO = ROOT / "TAU-urban-acoustic-scenes-2019-development" / "audio"
PROMPT = "Please describe the audio."
HALL = ("people talk while a suitcase rolls by", "a crowd murmurs in a large hall")
ECHO = ("an announcement echoes through a hall",)
BIRDS = ("birds sing over distant traffic", "birds and cars")
FOUNTAIN = ("children shout near a fountain", "water splashes and children play", "kids are playing")
ACCORDION = ("someone plays the accordion",)


def sample(id: str, clip: str, learnt: str, references: tuple[str, ...]) -> Sample:
    return Sample(id, "own", exchange(PROMPT, learnt), audios=(AUDIO / clip,), references=references)


EXPECTED = {
    "train": [
        sample("airport-prague-0-40-a.wav#1", "airport-prague-0-40-a.wav", HALL[0], HALL),
        sample("airport-prague-0-40-a.wav#2", "airport-prague-0-40-a.wav", HALL[1], HALL),
        sample("airport-prague-0-41-a.wav#1", "airport-prague-0-41-a.wav", ECHO[0], ECHO),
    ],
    "validation": [sample("park-lisbon-0-3-a.wav", "park-lisbon-0-3-a.wav", BIRDS[0], BIRDS)],
    "test": [
        sample("public_square-prague-1-9-a.wav", "public_square-prague-1-9-a.wav", FOUNTAIN[0], FOUNTAIN),
        sample("public_square-prague-1-10-a.wav", "public_square-prague-1-10-a.wav", ACCORDION[0], ACCORDION),
    ],
}


@pytest.mark.parametrize("split", EXPECTED)
def test_each_split(split):
    assert samples(READER.read, split, ROOT) == EXPECTED[split]
    assert split in READER.splits


def test_the_clips_can_be_heard():
    assert all(len(load_audio(path)) == 1600 for split in EXPECTED for row in EXPECTED[split] for path in row.audios)


def test_the_place_of_recording_decides_the_split(tmp_path):
    def bucket(place: str) -> int:
        return int(hashlib.sha256(place.encode()).hexdigest()[:16], 16) % 10

    root = tmp_path / "macs"
    (root / "audio").mkdir(parents=True)
    names = [f"{scene}-rome-{place}-7-a.wav" for place in range(40) for scene in ("park", "airport")]
    for name in names:
        (root / "audio" / name).touch()
    lines = [f"- filename: {name}\n  annotations:\n  - sentence: a sound" for name in names]
    (root / "MACS.yaml").write_text("\n".join(["files:", *lines]), encoding="utf-8")
    parts = {split: {row.audios[0].name for row in samples(READER.read, split, root)} for split in READER.splits}
    of_place = {name: bucket("-".join(name.split("-")[1:3])) for name in names}
    assert parts == {
        "train": {name for name in names if of_place[name] < 8},
        "validation": {name for name in names if of_place[name] == 8},
        "test": {name for name in names if of_place[name] == 9},
    }
    assert all(parts.values())


def test_another_kind_of_name_is_its_own_place(tmp_path):
    root = tmp_path / "macs"
    (root / "audio").mkdir(parents=True)
    names = [f"a-b-c-{number}.wav" for number in range(30)]
    for name in names:
        (root / "audio" / name).touch()
    lines = [f"- filename: {name}\n  annotations: [{{sentence: a sound}}]" for name in names]
    (root / "MACS.yaml").write_text("\n".join(["files:", *lines]), encoding="utf-8")
    assert all(samples(READER.read, split, root) for split in READER.splits)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("sentence: an announcement echoes through a hall", "sentence: ''", "sentence is empty; expected a text"),
        ("sentence: an announcement echoes through a hall", "sentence: 3", "sentence is 3; expected a text"),
        ("sentence: an announcement echoes through a hall", "text: a hall", "'sentence' is missing"),
        (
            "annotations:\n  - annotator_id: 7\n    sentence: an announcement",
            "annotations: []\n  more:\n  - text: an announcement",
            "annotations is []; expected a list of at least one item",
        ),
    ],
)
def test_a_clip_without_a_sentence(tmp_path, old, new, reason):
    root = copied("macs", tmp_path)
    edited(root / "MACS.yaml", old, new)
    [flaw] = flaws(READER.read, "train", root)
    assert (flaw.id, flaw.path, flaw.reason) == ("airport-prague-0-41-a.wav", str(root / "MACS.yaml"), reason)


def test_a_clip_that_is_not_there_and_one_that_lies_outside(tmp_path):
    root = copied("macs", tmp_path)
    audio = root / AUDIO.relative_to(ROOT)
    (audio / "airport-prague-0-41-a.wav").unlink()
    [flaw] = flaws(READER.read, "train", root)
    assert (flaw.id, flaw.path, flaw.reason) == (
        "airport-prague-0-41-a.wav",
        str(audio / "airport-prague-0-41-a.wav"),
        "audio does not exist",
    )
    edited(root / "MACS.yaml", "airport-prague-0-41-a.wav", "../x-prague-0-41-a.wav")
    [flaw] = flaws(READER.read, "train", root)
    assert flaw.reason == "audio lies outside the task's folder and its media_roots"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("files: [", "did not find expected"),
        ("files: []", "files is []; expected a list"),
        ("rows: []", "'files' is missing"),
        ("- a", "found ['a']; expected an object"),
        ("files: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_not_macs(tmp_path, content, reason):
    (tmp_path / "MACS.yaml").write_text(content, encoding="utf-8")
    message = mistake(READER.read, "train", tmp_path)
    assert message.startswith(f"task own: {tmp_path / 'MACS.yaml'} is not MACS's list of files in YAML (")
    assert reason in message


def test_rows_that_are_no_files(tmp_path):
    rows = "\n".join(f"- {value}" for value in ("3", "{filename: 4}", "{}") * 20)
    (tmp_path / "MACS.yaml").write_text(f"files:\n{rows}\n", encoding="utf-8")
    found = [flaw for split in READER.splits for flaw in flaws(READER.read, split, tmp_path)]
    assert sorted(int(flaw.id.removeprefix("file ")) for flaw in found) == list(range(1, 61))
    assert {flaw.reason for flaw in found} == {
        "found 3; expected an object",
        "filename is 4; expected a text",
        "'filename' is missing",
    }


def test_a_split_that_it_does_not_have_and_a_missing_file(tmp_path):
    assert mistake(READER.read, "dev", ROOT) == "task own: macs has no split 'dev'; allowed: train, validation, test"
    assert "MACS.yaml cannot be read (No such file or directory)" in mistake(READER.read, "train", tmp_path)
