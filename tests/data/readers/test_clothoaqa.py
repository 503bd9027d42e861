"""ClothoAQA: three answers a question, in the owners' CSV files."""

from __future__ import annotations

import pytest
from _published import FIXTURES, copied, edited, flaws, mistake, samples

from equipoise.data.audio import load_audio
from equipoise.data.readers.clothoaqa import READER
from equipoise.data.sample import Sample, exchange

ROOT = FIXTURES / "clothoaqa"
RAIN, BELL, DOOR, TRAM = (
    (ROOT / "audio_files" / f"{name}.wav",) for name in ("rain on tin", "bell, small", "door", "tram")
)


def sample(id: str, question: str, learnt: str, audios: tuple, references: tuple[str, ...]) -> Sample:
    return Sample(id, "own", exchange(question, learnt), audios=audios, references=references)


EXPECTED = {
    "train": [
        sample("rain on tin.wav#1", "Is it raining?", "yes", RAIN, ("yes", "yes", "no")),
        sample("rain on tin.wav#2", "What is the roof made of?", "metal", RAIN, ("tin", "metal", "metal")),
        sample("bell, small.wav#1", "How many times does the bell ring?", "two", BELL, ("two", "three", "one")),
    ],
    "validation": [
        sample("door.wav#1", "Does a door close?", "Yes", DOOR, ("no", "Yes", "yes")),
        sample("door.wav#2", "Who speaks?", "nobody", DOOR, ("nobody", "nobody", "man")),
    ],
    "test": [
        sample("tram.wav#1", "Which vehicle passes?", "tram", TRAM, ("tram", "train", "tram")),
        sample("tram.wav#2", "Is there music?", "no", TRAM, ("no", "no", "no")),
    ],
}


@pytest.mark.parametrize("split", EXPECTED)
def test_each_split(split):
    assert samples(READER.read, split, ROOT) == EXPECTED[split]
    assert split in READER.splits


def test_the_clips_can_be_heard():
    assert all(len(load_audio(path)) == 3200 for split in EXPECTED for row in EXPECTED[split] for path in row.audios)


def test_answers_to_one_question_need_not_stand_together(tmp_path):
    root = copied("clothoaqa", tmp_path)
    source = root / "clotho_aqa_test.csv"
    heading, *rows = source.read_text(encoding="utf-8").splitlines()
    source.write_text("\n".join([heading, *rows[::2], *rows[1::2]]), encoding="utf-8")
    assert [(row.id, row.references) for row in samples(READER.read, "test", root)] == [
        ("tram.wav#1", ("tram", "tram", "train")),
        ("tram.wav#2", ("no", "no", "no")),
    ]


def test_an_empty_answer_is_none(tmp_path):
    root = copied("clothoaqa", tmp_path)
    edited(
        root / "clotho_aqa_test.csv", "tram.wav,Which vehicle passes?,train,maybe", "tram.wav,Which vehicle passes?, ,"
    )
    assert samples(READER.read, "test", root)[0].references == ("tram", "tram")


def test_questions_that_cannot_be_asked(tmp_path):
    root = copied("clothoaqa", tmp_path)
    source = root / "clotho_aqa_test.csv"
    rows = [
        "gone.wav,Is it loud?,yes,yes",
        "tram.wav,Is it loud?,,yes",
        "tram.wav,,yes,yes",
        "../door.wav,Is it?,yes,yes",
    ]
    source.write_text(source.read_text(encoding="utf-8") + "\n".join([*rows, "tram.wav"]), encoding="utf-8")
    found = [(flaw.id, flaw.path, flaw.reason) for flaw in flaws(READER.read, "test", root)]
    assert found == [
        ("gone.wav#1", str(root / "audio_files" / "gone.wav"), "audio does not exist"),
        ("tram.wav#3", str(source), "all answers are empty; expected a text"),
        ("tram.wav#4", str(source), "QuestionText is empty; expected a text"),
        (
            "../door.wav#1",
            str(root / "audio_files" / "../door.wav"),
            "audio lies outside the task's folder and its media_roots",
        ),
        ("tram.wav#5", str(source), "QuestionText is None; expected a text"),
    ]


def test_a_split_that_it_does_not_have():
    assert mistake(READER.read, "val", ROOT) == (
        "task own: clothoaqa has no split 'val'; allowed: train, validation, test"
    )


def test_files_that_are_not_its(tmp_path):
    root = copied("clothoaqa", tmp_path)
    edited(root / "clotho_aqa_train.csv", "QuestionText", "question")
    assert "has no column 'QuestionText'; found file_name, question, answer, confidence" in mistake(
        READER.read, "train", root
    )
    (root / "clotho_aqa_val.csv").unlink()
    assert "clotho_aqa_val.csv cannot be read (No such file or directory)" in mistake(READER.read, "validation", root)
