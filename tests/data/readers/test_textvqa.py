"""TextVQA: every split of the fixture as written by hand, each kind of flaw, files that are not TextVQA's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.readers.reader import Flaw
from equipoise.data.readers.textvqa import READER
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "textvqa"


def read(split: str, path: Path = FIXTURE) -> list[Sample | Flaw]:
    return list(READER.read("text", split, path))


def sample(identity: str, question: str, answer: str, image: str, references: tuple[str, ...]) -> Sample:
    turns = (Turn("user", question), Turn("assistant", answer))
    return Sample(identity, "text", turns, (FIXTURE / image,), references)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "textvqa")


def changed(folder: Path, change: Callable[[list[Any]], object]) -> list[Sample | Flaw]:
    """Read train after a change of its questions."""
    source = folder / "TextVQA_0.5.1_train.json"
    content = json.loads(source.read_text())
    change(content["data"])
    source.write_text(json.dumps(content))
    return read("train", folder)


def test_train_learns_the_most_frequent_answer_and_the_first_of_several():
    miller = ("miller", "miller's", "miller", "miller", "millers", "miller", "miller", "the miller", "miller", "miller")
    door = ("17", "71", "17", "71", "71", "17", "1", "7", "17", "71")
    label = ("", "unanswerable", "olive oil", "", "olive oil", "", "olive", "oil", "extra", "no")
    assert read("train") == [
        sample("31", "what is the name of the shop?", "miller", "train_images/0a11c0ffee000001.jpg", miller),
        sample("32", "what number is on the door?", "17", "train_images/0a11c0ffee000001.jpg", door),
        sample("33", "what does the red label say?", "olive oil", "train_images/0a11c0ffee000002.jpg", label),
    ]


@pytest.mark.parametrize("split", ["validation", "val"])
def test_validation_has_its_images_among_those_of_train(split):
    book = ("ann lee", "a. lee", "ann lee", "lee", "lee", "ann lee", "lee", "lee", "ann lee", "unanswerable")
    assert read(split) == [
        sample("34605", "which bus line is this?", "24", "train_images/0b22c0ffee000003.jpg", ("24",) * 9 + ("24a",)),
        sample("34606", "who wrote the book?", "ann lee", "train_images/0b22c0ffee000004.jpg", book),
    ]


def test_test_has_no_answers():
    assert read("test") == [
        sample("39605", "what time does the clock show?", "", "test_images/0c33c0ffee000005.jpg", ()),
        sample("39606", "what brand is the clock?", "", "test_images/0c33c0ffee000005.jpg", ()),
    ]


def test_what_the_reader_says_of_itself():
    assert READER.splits == ("train", "validation", "val", "test")
    assert READER.unanswered == {"test"}
    assert READER.response_format == "Answer the question using a single word or phrase."
    assert READER.needs_path


@pytest.mark.parametrize(
    ("change", "identity", "reason"),
    [
        (lambda rows: rows[1].pop("answers"), "32", "'answers' is missing"),
        (lambda rows: rows[1].update(answers=[]), "32", "answers is []; expected a list of at least one item"),
        (lambda rows: rows[1].update(answers="17"), "32", "answers is '17'; expected a list of at least one item"),
        (lambda rows: rows[1].update(answers=["17", 17]), "32", "one of answers is 17; expected a text"),
        (lambda rows: rows[1].update(answers=["", " "]), "32", "all answers are empty; expected a text"),
        (lambda rows: rows[1].update(question=None), "32", "question is None; expected a text"),
        (lambda rows: rows[1].update(question=" "), "32", "question is empty; expected a text"),
        (lambda rows: rows[1].update(image_id=7), "32", "image_id is 7; expected a text"),
        (lambda rows: rows[1].pop("image_id"), "32", "'image_id' is missing"),
        (lambda rows: rows[1].update(question_id="x"), "x", "question_id is 'x'; expected a whole number"),
        (lambda rows: rows[1].update(question_id=True), "True", "question_id is True; expected a whole number"),
        (lambda rows: rows[1].pop("question_id"), "item 2", "'question_id' is missing"),
        (lambda rows: rows.__setitem__(1, "row"), "item 2", "found 'row'; expected an object"),
    ],
)
def test_a_question_that_is_no_sample_is_a_flaw_among_the_others(copied, change, identity, reason):
    first, flaw, last = changed(copied, change)
    assert flaw == Flaw(identity, str(copied / "TextVQA_0.5.1_train.json"), reason)
    assert (first.id, last.id) == ("31", "33")


def test_an_image_that_is_not_there(copied):
    (copied / "train_images/0a11c0ffee000002.jpg").unlink()
    assert read("train", copied)[2] == Flaw(
        "33", str(copied / "train_images/0a11c0ffee000002.jpg"), "image does not exist"
    )


def test_an_image_outside_the_folder(copied):
    (copied / "outside.jpg").touch()
    flaw = changed(copied, lambda rows: rows[0].update(image_id="../outside"))[0]
    assert flaw == Flaw(
        "31", str(copied / "train_images/../outside.jpg"), "image lies outside the task's folder and its media_roots"
    )


def test_an_unknown_split():
    with pytest.raises(
        DataError, match=r"^task text: textvqa has no split 'dev'; allowed: train, validation, val, test$"
    ):
        read("dev")


def test_a_file_that_is_cut_short(copied):
    source = copied / "TextVQA_0.5.1_train.json"
    source.write_bytes(source.read_bytes()[:-60])
    reading = READER.read("text", "train", copied)
    assert [next(reading).id, next(reading).id] == ["31", "32"]
    with pytest.raises(DataError, match=r"TextVQA_0\.5\.1_train\.json is cut short or no JSON after 2 items") as caught:
        next(reading)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"^task text: .*TextVQA_0\.5\.1_train\.json cannot be read \(No such file"):
        read("train", tmp_path)
