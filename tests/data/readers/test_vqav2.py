"""VQAv2: every split of the fixture as written by hand, each kind of flaw in both files, and the size in memory."""

from __future__ import annotations

import json
import random
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _published import mistake

from equipoise.data.readers import vqav2
from equipoise.data.readers.reader import Flaw
from equipoise.data.readers.vqav2 import READER
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "vqav2"
QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


def read(split: str, path: Path = FIXTURE) -> list[Sample | Flaw]:
    return list(READER.read("vqa", split, path))


def sample(identity: str, question: str, answer: str, image: str, references: tuple[str, ...] = ()) -> Sample:
    turns = (Turn("user", question), Turn("assistant", answer))
    return Sample(identity, "vqa", turns, (FIXTURE / image,), references)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "vqav2")


def changed(folder: Path, name: str, key: str, change: Callable[[list[Any]], object]) -> list[Sample | Flaw]:
    """Read train after a change of a file's list."""
    content = json.loads((folder / name).read_text())
    change(content[key])
    (folder / name).write_text(json.dumps(content))
    return read("train", folder)


def annotation(rows: list[Any], question: int) -> dict[str, Any]:
    return next(row for row in rows if row["question_id"] == question)


@pytest.mark.parametrize("split", ["train", "train2014"])
def test_train_learns_the_owners_choice_and_keeps_all_ten_answers(split):
    house = ("house", "home", "house", "barn", "house", "building", "", "house", "shed", "house")
    balls = ("2", "2", "3", "2", "2", "two", "2", "2", "1", "2")
    assert read(split) == [
        sample("9000", "How many balls are there?", "2", "train2014/COCO_train2014_000000000009.jpg", balls),
        sample("9001", "Is it daytime?", "yes", "train2014/COCO_train2014_000000000009.jpg", ("yes",) * 9 + ("no",)),
        sample("131089002", "What is behind the tree?", "house", "train2014/COCO_train2014_000000131089.jpg", house),
    ]


@pytest.mark.parametrize("split", ["validation", "val", "val2014"])
def test_validation(split):
    boat = ("no", "no", "yes", "no", "yes", "no", "no", "no", "yes", "no")
    car = ("red",) * 8 + ("dark red", "maroon")
    assert read(split) == [
        sample("42000", "What colour is the car?", "red", "val2014/COCO_val2014_000000000042.jpg", car),
        sample("73001", "Is the boat moving?", "no", "val2014/COCO_val2014_000000000073.jpg", boat),
    ]


@pytest.mark.parametrize("split", ["test", "test2015"])
def test_test_has_no_answers(split):
    assert read(split) == [
        sample("1000", "What is on the hill?", "", "test2015/COCO_test2015_000000000001.jpg"),
        sample("1001", "Is it raining?", "", "test2015/COCO_test2015_000000000001.jpg"),
        sample("262144005", "What shape is this?", "", "test2015/COCO_test2015_000000262144.jpg"),
    ]


@pytest.mark.parametrize("split", ["test-dev", "test-dev2015"])
def test_test_dev_has_the_images_of_test(split):
    assert read(split) == [
        sample("262144005", "What shape is this?", "", "test2015/COCO_test2015_000000262144.jpg"),
        sample("1001", "Is it raining?", "", "test2015/COCO_test2015_000000000001.jpg"),
    ]


def test_what_the_reader_says_of_itself():
    assert READER.splits[:4] == ("train", "validation", "test", "test-dev")
    assert READER.unanswered == {"test", "test-dev", "test2015", "test-dev2015"}
    assert READER.response_format == "Answer the question using a single word or phrase."
    assert READER.needs_path


@pytest.mark.parametrize(
    ("change", "identity", "reason"),
    [
        (lambda rows: rows[1].pop("question"), "9001", "'question' is missing"),
        (lambda rows: rows[1].update(question=3), "9001", "question is 3; expected a text"),
        (lambda rows: rows[1].pop("image_id"), "9001", "'image_id' is missing"),
        (lambda rows: rows[1].update(image_id="9"), "9001", "image_id is '9'; expected a whole number"),
        (lambda rows: rows[1].update(question_id="9001"), "9001", "question_id is '9001'; expected a whole number"),
        (lambda rows: rows[1].pop("question_id"), "item 2", "'question_id' is missing"),
        (lambda rows: rows.__setitem__(1, None), "item 2", "found None; expected an object"),
    ],
)
def test_a_question_that_is_no_sample(copied, change, identity, reason):
    first, flaw, last = changed(copied, QUESTIONS, "questions", change)
    assert flaw == Flaw(identity, str(copied / QUESTIONS), reason)
    assert (first.id, last.id) == ("9000", "131089002")


MISSING = "the question has no annotation"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.remove(annotation(rows, 9001)), MISSING),
        (lambda rows: annotation(rows, 9001).pop("question_id"), MISSING),
        (lambda rows: rows.__setitem__(rows.index(annotation(rows, 9001)), 5), MISSING),
        (
            lambda rows: annotation(rows, 9001).pop("multiple_choice_answer"),
            "multiple_choice_answer is None; expected a text",
        ),
        (
            lambda rows: annotation(rows, 9001).update(multiple_choice_answer=""),
            "multiple_choice_answer is empty; expected a text",
        ),
        (
            lambda rows: annotation(rows, 9001).update(answers=[]),
            "answers is []; expected a list of at least one item",
        ),
        (
            lambda rows: annotation(rows, 9001).pop("answers"),
            "answers is None; expected a list of at least one item",
        ),
        (lambda rows: annotation(rows, 9001)["answers"][4].pop("answer"), "one of answers is None; expected a text"),
        (lambda rows: annotation(rows, 9001).update(answers=["yes"]), "found 'yes'; expected an object"),
    ],
)
def test_a_question_without_usable_answers_names_the_file_of_annotations(copied, change, reason):
    first, flaw, last = changed(copied, ANNOTATIONS, "annotations", change)
    assert flaw == Flaw("9001", str(copied / ANNOTATIONS), reason)
    assert (first.id, last.id) == ("9000", "131089002")


def test_an_image_that_is_not_there(copied):
    image = copied / "train2014/COCO_train2014_000000131089.jpg"
    image.unlink()
    assert read("train", copied)[2] == Flaw("131089002", str(image), "image does not exist")


def test_a_folder_of_images_may_be_a_link_to_one_that_is_shared(copied, tmp_path):
    shared = (copied / "train2014").rename(tmp_path / "coco")
    (copied / "train2014").symlink_to(shared)
    assert read("train", copied)[0].images == (shared / "COCO_train2014_000000000009.jpg",)


def test_an_unknown_split():
    with pytest.raises(
        DataError, match=r"^task vqa: vqav2 has no split 'dev'; allowed: train, validation, test, test-dev, "
    ):
        read("dev")


@pytest.mark.parametrize(("name", "count"), [(QUESTIONS, 2), (ANNOTATIONS, 2)])
def test_a_file_that_is_cut_short(copied, name, count):
    (copied / name).write_bytes((copied / name).read_bytes().rstrip()[:-60])
    assert f"{name} is cut short or no JSON after {count} items" in mistake(READER.read, "train", copied)


@pytest.mark.parametrize("name", [QUESTIONS, ANNOTATIONS])
def test_a_missing_file(copied, name):
    (copied / name).unlink()
    with pytest.raises(DataError, match=rf"^task vqa: .*{name} cannot be read \(No such file"):
        read("train", copied)


def test_the_answers_of_all_questions_stay_small_in_memory(tmp_path):
    """443,757 questions take less than 300 MB, if a hundredth part of them takes less than 3 MB."""
    draw = random.Random(0)
    words = [f"answer {number}" for number in range(3000)]
    rows = []
    for question in range(4437):
        answers = draw.choices(words, k=10)
        given = [{"answer": a, "answer_confidence": "maybe", "answer_id": n} for n, a in enumerate(answers, start=1)]
        rows.append({"question_id": question, "multiple_choice_answer": answers[0], "answers": given, "image_id": 1})
    (tmp_path / ANNOTATIONS).write_text(json.dumps({"annotations": rows}))
    (tmp_path / QUESTIONS).write_text(json.dumps({"questions": [{"question_id": 0, "image_id": 1, "question": "q"}]}))
    del rows, given
    reading = vqav2.read("vqa", "train", tmp_path)
    tracemalloc.start()
    try:
        next(reading)  # a flaw, for there are no images; the answers are in memory
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 3_000_000
