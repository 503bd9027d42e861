"""OCR-VQA: every split of the fixture as written by hand, endings of images, and each kind of flaw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _published import mistake

from equipoise.data.readers.ocrvqa import READER
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "ocrvqa"
AUTHOR, TITLE = "Who is the author of this book?", "What is the title of this book?"


def read(split: str, path: Path = FIXTURE) -> list[Sample | Flaw]:
    return list(READER.read("ocr", split, path))


def sample(identity: str, question: str, answer: str, image: str) -> Sample:
    turns = (Turn("user", question), Turn("assistant", answer))
    return Sample(identity, "ocr", turns, (FIXTURE / "images" / image,), (answer,))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "ocrvqa")


def changed(folder: Path, change: Callable[[dict[str, Any]], object], split: str = "train") -> list[Sample | Flaw]:
    """Read a split after a change of the file."""
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))
    return read(split, folder)


def test_train_is_one_sample_a_question():
    assert read("train") == [
        sample("761183272-1", AUTHOR, "Ida Marsh", "761183272.jpg"),
        sample("761183272-2", TITLE, "Boats", "761183272.jpg"),
        sample("761183272-3", "Is this a travel book?", "Yes", "761183272.jpg"),
        sample("000215949X-1", AUTHOR, "Ada Bell", "000215949X.gif"),
        sample("000215949X-2", TITLE, "Nine Hills", "000215949X.gif"),
    ]


def test_validation_and_test():
    assert read("validation") == [
        sample("1593279221-1", AUTHOR, "Tom Reed", "1593279221.jpg"),
        sample("1593279221-2", TITLE, "Salt and Bread", "1593279221.jpg"),
    ]
    assert read("test") == [
        sample("810928949-1", AUTHOR, "Max Oak", "810928949.jpg"),
        sample("810928949-2", TITLE, "Owls", "810928949.jpg"),
    ]


def test_a_cover_may_be_kept_as_jpg_whatever_its_url_ends_in(copied):
    images = copied / "images"
    (images / "000215949X.gif").rename(images / "000215949X.jpg")
    assert read("train", copied)[3].images == (images / "000215949X.jpg",)
    (images / "000215949X.gif").touch()
    assert read("train", copied)[3].images == (images / "000215949X.gif",)


def test_what_the_reader_says_of_itself():
    assert READER.splits == ("train", "validation", "test")
    assert READER.unanswered == frozenset()
    assert READER.response_format == "Answer the question using a single word or phrase."
    assert READER.needs_path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda book: book["answers"].__setitem__(1, ""), "answer is empty; expected a text"),
        (lambda book: book["answers"].__setitem__(1, 1984), "answer is 1984; expected a text"),
        (lambda book: book["questions"].__setitem__(1, None), "question is None; expected a text"),
    ],
)
def test_a_question_that_is_no_sample_leaves_the_others_of_its_image(copied, change, reason):
    found = changed(copied, lambda books: change(books["761183272"]))
    assert found[1] == Flaw("761183272-2", str(copied / "dataset.json"), reason)
    assert [one.id for one in found if isinstance(one, Sample)] == [
        "761183272-1",
        "761183272-3",
        "000215949X-1",
        "000215949X-2",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda book: book.pop("questions"), "'questions' is missing"),
        (lambda book: book.pop("answers"), "'answers' is missing"),
        (lambda book: book.update(questions="Who?"), "questions is 'Who?'; expected a list of at least one item"),
        (lambda book: book.update(answers=[]), "answers is []; expected a list of at least one item"),
        (lambda book: book["answers"].pop(), "found 3 questions and 2 answers; expected as many"),
        (lambda book: book.update(split=4), "split is 4; allowed: 1, 2, 3"),
        (lambda book: book.update(split="1"), "split is '1'; allowed: 1, 2, 3"),
        (lambda book: book.pop("split"), "'split' is missing"),
    ],
)
def test_an_image_whose_entry_cannot_be_used_is_one_flaw(copied, change, reason):
    flaw, *others = changed(copied, lambda books: change(books["761183272"]))
    assert flaw == Flaw("761183272", str(copied / "dataset.json"), reason)
    assert [one.id for one in others] == ["000215949X-1", "000215949X-2"]


def test_an_entry_that_is_no_object(copied):
    flaw, *_ = changed(copied, lambda books: books.update({"761183272": 7}))
    assert flaw == Flaw("761183272", str(copied / "dataset.json"), "found 7; expected an object")


def test_flaws_of_other_splits_are_theirs(copied):
    def change(books: dict[str, Any]) -> None:
        books["761183272"]["answers"].pop()

    assert [one.id for one in changed(copied, change, "test")] == ["810928949-1", "810928949-2"]
    assert isinstance(read("train", copied)[0], Flaw)


@pytest.mark.parametrize(("image", "ending", "first"), [("761183272", "jpg", 0), ("000215949X", "gif", 3)])
def test_an_image_that_is_not_there(copied, image, ending, first):
    (copied / "images" / f"{image}.{ending}").unlink()
    expected = Flaw(f"{image}-1", str(copied / "images" / f"{image}.{ending}"), "image does not exist")
    assert read("train", copied)[first] == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda book: book.pop("imageURL"), "'imageURL' is missing"),
        (lambda book: book.update(imageURL=None), "imageURL is None; expected a text"),
    ],
)
def test_an_image_without_a_url(copied, change, reason):
    flaw = changed(copied, lambda books: change(books["761183272"]))[2]
    assert flaw == Flaw("761183272-3", str(copied / "dataset.json"), reason)


def test_an_id_that_climbs_out_of_the_folder(copied):
    (copied / "out.jpg").touch()
    flaw = changed(copied, lambda books: books.update({"../out": books.pop("761183272")}))[2]
    assert flaw == Flaw(
        "../out-1", str(copied / "images/../out.jpg"), "image lies outside the task's folder and its media_roots"
    )


def test_an_unknown_split():
    with pytest.raises(DataError, match=r"^task ocr: ocrvqa has no split 'val'; allowed: train, validation, test$"):
        read("val")


def test_a_file_that_is_cut_short(copied):
    source = copied / "dataset.json"
    source.write_bytes(source.read_bytes().rstrip()[:-20])
    assert "dataset.json is cut short or no JSON after 3 items" in mistake(READER.read, "train", copied)


def test_a_missing_file(tmp_path):
    assert "dataset.json cannot be read (No such file" in mistake(READER.read, "train", tmp_path)
