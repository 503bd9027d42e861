"""GQA: every split of the fixture as written by hand, balanced or all, and each kind of flaw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _published import mistake

from equipoise.data.readers.gqa import READER
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "gqa"
TRAIN = "train_balanced_questions.json"


def read(split: str, path: Path = FIXTURE, **options: str) -> list[Sample | Flaw]:
    return list(READER.read("gqa", split, path, **options))


def sample(identity: str, question: str, answer: str, image: str) -> Sample:
    turns = (Turn("user", question), Turn("assistant", answer))
    return Sample(identity, "gqa", turns, (FIXTURE / "images" / image,), (answer,) if answer else ())


BALANCED = [
    sample("02930152", "What colour is the ball?", "red", "2354786.jpg"),
    sample("02930153", "Is the ball to the left of the box?", "yes", "2354786.jpg"),
]
VALIDATION = [
    sample("05515938", "Are there any cups?", "no", "713270.jpg"),
    sample("05515939", "What is on the table?", "plate", "713270.jpg"),
]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "gqa")


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> list[Sample | Flaw]:
    """Read train after a change of its questions."""
    content = json.loads((folder / TRAIN).read_text())
    change(content)
    (folder / TRAIN).write_text(json.dumps(content))
    return read("train", folder)


def test_train_is_balanced_unless_all_questions_are_asked_for():
    assert read("train") == read("train", questions="balanced") == BALANCED


def test_all_of_train_is_read_from_ten_parts():
    assert read("train", questions="all") == [
        *BALANCED,
        sample("07333408", "Which room is it?", "living room", "n57312.jpg"),
    ]


@pytest.mark.parametrize("split", ["validation", "val"])
def test_validation(split):
    assert read(split) == VALIDATION
    everything = [*VALIDATION, sample("05515940", "Is the table brown?", "yes", "713270.jpg")]
    assert read(split, questions="all") == everything


def test_testdev_has_answers():
    assert read("testdev") == [
        sample("201307251", "Is the sky blue?", "yes", "n161313.jpg"),
        sample("201640614", "What is the animal?", "dog", "n161313.jpg"),
    ]


def test_test_and_challenge_have_none():
    assert read("test") == [
        sample("200010001", "Is there a door?", "", "n300001.jpg"),
        sample("200010002", "What colour is the door?", "", "n300001.jpg"),
    ]
    assert read("challenge") == [
        sample("300020001", "Who is at the door?", "", "n300001.jpg"),
        sample("300020002", "Is it open?", "", "n300001.jpg"),
    ]


def test_what_the_reader_says_of_itself():
    assert READER.splits == ("train", "validation", "val", "testdev", "test", "challenge")
    assert READER.unanswered == {"test", "challenge"}
    assert READER.response_format == "Answer the question using a single word or phrase."
    assert READER.needs_path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows["02930152"].pop("answer"), "'answer' is missing"),
        (lambda rows: rows["02930152"].update(answer=""), "answer is empty; expected a text"),
        (lambda rows: rows["02930152"].update(answer=["red"]), "answer is ['red']; expected a text"),
        (lambda rows: rows["02930152"].pop("question"), "'question' is missing"),
        (lambda rows: rows["02930152"].update(question=5), "question is 5; expected a text"),
        (lambda rows: rows["02930152"].pop("imageId"), "'imageId' is missing"),
        (lambda rows: rows["02930152"].update(imageId=2354786), "imageId is 2354786; expected a text"),
        (lambda rows: rows.update({"02930152": None}), "found None; expected an object"),
    ],
)
def test_a_question_that_is_no_sample_is_a_flaw_among_the_others(copied, change, reason):
    flaw, other = changed(copied, change)
    assert flaw == Flaw("02930152", str(copied / TRAIN), reason)
    assert other.id == "02930153"


def test_an_image_that_is_not_there(copied):
    image = copied / "images/2354786.jpg"
    image.unlink()
    assert read("train", copied) == [
        Flaw(identity, str(image), "image does not exist") for identity in ("02930152", "02930153")
    ]


def test_a_flaw_in_a_part_names_the_part(copied):
    part = copied / "train_all_questions/train_all_questions_8.json"
    part.write_text('{"07333408": {}}')
    assert read("train", copied, questions="all")[2] == Flaw("07333408", str(part), "'answer' is missing")


def test_an_unknown_split_and_an_unknown_option():
    allowed = "train, validation, val, testdev, test, challenge"
    with pytest.raises(DataError, match=rf"^task gqa: gqa has no split 'dev'; allowed: {allowed}$"):
        read("dev")
    with pytest.raises(DataError, match=r"^task gqa: gqa has no questions 'some'; allowed: balanced, all$"):
        read("train", questions="some")


def test_a_file_that_is_cut_short(copied):
    (copied / TRAIN).write_bytes((copied / TRAIN).read_bytes().rstrip()[:-20])
    assert "train_balanced_questions.json is cut short or no JSON after 1 items" in mistake(
        READER.read, "train", copied
    )


@pytest.mark.parametrize("part", [0, 9])
def test_a_missing_file(copied, part):
    (copied / f"train_all_questions/train_all_questions_{part}.json").unlink()
    with pytest.raises(DataError, match=rf"train_all_questions_{part}\.json cannot be read \(No such file"):
        read("train", copied, questions="all")
