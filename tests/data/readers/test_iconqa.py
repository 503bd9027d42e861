"""IconQA: every split and sub-task of the fixture as written by hand, and each kind of flaw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.readers.files import watching
from equipoise.data.readers.iconqa import READER
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "iconqa"
BELOW = Path("iconqa_data/iconqa")
LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."


def read(split: str, path: Path = FIXTURE, **options: str) -> list[Sample | Flaw]:
    return list(READER.read("icon", split, path, **options))


def sample(folder: str, prompt: str, answer: str, references: tuple[str, ...], choices: int = 0) -> Sample:
    """The sample of one problem; `choices` are the images among its choices."""
    problem = FIXTURE / BELOW / folder
    images = [problem / "image.png", *(problem / f"choice_{number}.png" for number in range(choices))]
    turns = (Turn("user", prompt), Turn("assistant", answer))
    return Sample(problem.name, "icon", turns, tuple(images), references)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "iconqa")


def changed(folder: Path, problem: str, change: Callable[[dict[str, Any]], object]) -> list[Sample | Flaw]:
    """Read the sub-task of train that a problem belongs to, after a change of the problem."""
    source = folder / BELOW / "train" / problem / "data.json"
    content = json.loads(source.read_text())
    change(content)
    source.write_text(json.dumps(content))
    return read("train", folder, subtask=problem.split("/")[0])


def test_choices_that_are_texts():
    dots = f"Which colour are most of the dots?\nA. red\nB. blue\nC. green\n{LETTER}"
    certain = f"Is it certain that you will pick a green dot?\nA. certain\nB. impossible\n{LETTER}"
    expected = [
        sample("train/choose_txt/17", dots, "B", ("blue", "B")),
        sample("train/choose_txt/204", certain, "A", ("certain", "A")),
    ]
    assert read("train") == read("train", subtask="choose_txt") == expected


def test_choices_that_are_images_come_after_the_drawing_and_are_listed_by_number():
    same = f"Which shape is the same as the one above?\nA. image 2\nB. image 3\nC. image 4\n{LETTER}"
    more = f"Which picture has more dots?\nA. image 2\nB. image 3\n{LETTER}"
    assert read("train", subtask="choose_img") == [
        sample("train/choose_img/9", same, "C", ("image 4", "C"), choices=3),
        sample("train/choose_img/1033", more, "A", ("image 2", "A"), choices=2),
    ]


def test_images_come_in_the_order_of_the_choices(copied):
    found = changed(copied, "choose_img/9", lambda row: row["choices"].reverse())[0]
    assert [image.name for image in found.images] == ["image.png", "choice_2.png", "choice_1.png", "choice_0.png"]


def test_blanks_to_fill_in():
    assert read("train", subtask="fill_in_blank") == [
        sample("train/fill_in_blank/5", f"How many dots are there?\n{SHORT}", "4", ("4",)),
        sample("train/fill_in_blank/40", f"The clock says quarter past _.\n{SHORT}", "seven", ("seven",)),
    ]


@pytest.mark.parametrize("split", ["validation", "val"])
def test_validation(split):
    squares = f"How many squares are there?\nA. 1\nB. 2\n{LETTER}"
    following = f"What comes next?\nA. one dot\nB. two dots\nC. three dots\nD. four dots\n{LETTER}"
    assert read(split) == [
        sample("val/choose_txt/96", following, "C", ("three dots", "C")),
        sample("val/choose_txt/1002", squares, "A", ("1", "A")),
    ]
    images = f"A. image 2\nB. image 3\n{LETTER}"
    assert read(split, subtask="choose_img") == [
        sample("val/choose_img/12", f"Which one is next?\n{images}", "B", ("image 3", "B"), choices=2),
        sample("val/choose_img/40", f"Which one is different?\n{images}", "A", ("image 2", "A"), choices=2),
    ]
    assert read(split, subtask="fill_in_blank") == [
        sample("val/fill_in_blank/11", f"Count by twos. How many are there in all?\n{SHORT}", "2", ("2",)),
        sample("val/fill_in_blank/13", f"How long is the bar?\n{SHORT}", "3", ("3",)),
    ]


def test_test_has_answers():
    left = f"Which dot is on the left?\nA. the black dot\nB. the yellow dot\n{LETTER}"
    more = f"Are there more red dots or blue dots?\nA. red dots\nB. blue dots\n{LETTER}"
    assert read("test") == [
        sample("test/choose_txt/58", left, "B", ("the yellow dot", "B")),
        sample("test/choose_txt/60", more, "A", ("red dots", "A")),
    ]
    images = f"A. image 2\nB. image 3\n{LETTER}"
    assert read("test", subtask="choose_img") == [
        sample("test/choose_img/7", f"Which one is blue?\n{images}", "B", ("image 3", "B"), choices=2),
        sample("test/choose_img/8", f"Which one is a square?\n{images}", "A", ("image 2", "A"), choices=2),
    ]
    assert read("test", subtask="fill_in_blank") == [
        sample("test/fill_in_blank/21", f"How many squares are there?\n{SHORT}", "1", ("1",)),
        sample("test/fill_in_blank/22", f"Which number comes after the dots?\n{SHORT}", "5", ("5",)),
    ]


def test_what_the_reader_says_of_itself():
    assert READER.splits == ("train", "validation", "val", "test")
    assert READER.unanswered == frozenset()
    assert READER.response_format is None
    assert READER.needs_path


@pytest.mark.parametrize(
    ("problem", "change", "reason"),
    [
        ("choose_txt/17", lambda row: row.pop("question"), "'question' is missing"),
        ("choose_txt/17", lambda row: row.update(question=None), "question is None; expected a text"),
        ("choose_txt/17", lambda row: row.pop("choices"), "'choices' is missing"),
        (
            "choose_txt/17",
            lambda row: row.update(choices="red"),
            "choices is 'red'; expected a list of at least one item",
        ),
        ("choose_txt/17", lambda row: row["choices"].append(4), "a choice is 4; expected a text"),
        ("choose_txt/17", lambda row: row.pop("answer"), "'answer' is missing"),
        ("choose_txt/17", lambda row: row.update(answer="blue"), "answer is 'blue'; expected a whole number"),
        ("choose_txt/17", lambda row: row.update(answer=3), "answer is 3; allowed: 0 to 2"),
        ("choose_img/9", lambda row: row.update(answer=3), "answer is 3; allowed: 0 to 2"),
        ("choose_img/9", lambda row: row["choices"].append(None), "a choice is None; expected a text"),
        ("fill_in_blank/5", lambda row: row.pop("answer"), "'answer' is missing"),
        ("fill_in_blank/5", lambda row: row.update(answer=""), "answer is empty; expected a text"),
        ("fill_in_blank/5", lambda row: row.update(answer=4), "answer is 4; expected a text"),
    ],
)
def test_a_problem_that_is_no_sample_is_a_flaw_among_the_others(copied, problem, change, reason):
    flaw, other = changed(copied, problem, change)
    assert flaw == Flaw(problem.split("/")[1], str(copied / BELOW / "train" / problem / "data.json"), reason)
    assert isinstance(other, Sample)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            '{"question": "Wh',
            "the file is cut short or no JSON (Unterminated string starting at: line 1 column 14 (char 13))",
        ),
        ("", "the file is cut short or no JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[1]", "found [1]; expected an object"),
    ],
)
def test_a_file_that_is_cut_short_costs_one_problem(copied, content, reason):
    source = copied / BELOW / "train/choose_txt/17/data.json"
    source.write_text(content)
    flaw, other = read("train", copied)
    assert (flaw.id, flaw.path) == ("17", str(source))
    assert flaw.reason == reason
    assert len(flaw.line("icon").splitlines()) == 1
    assert other.id == "204"


def test_a_problem_without_its_file_and_files_beside_the_problems(copied):
    source = copied / BELOW / "train/choose_txt/17/data.json"
    source.unlink()
    (copied / BELOW / "train/choose_txt/notes.txt").touch()
    flaw, other = read("train", copied)
    assert flaw == Flaw("17", str(source), "problem does not exist")
    assert other.id == "204"


@pytest.mark.parametrize("name", ["image.png", "choice_1.png"])
def test_an_image_that_is_not_there(copied, name):
    image = copied / BELOW / "train/choose_img/1033" / name
    image.unlink()
    assert read("train", copied, subtask="choose_img")[1] == Flaw("1033", str(image), "image does not exist")


def test_a_choice_outside_its_problem(copied):
    flaw = changed(copied, "choose_img/9", lambda row: row.update(choices=["../1033/image.png"]))[0]
    outside = copied / BELOW / "train/choose_img/9/../1033/image.png"
    assert flaw == Flaw("9", str(outside), "image lies outside the task's folder and its media_roots")


def test_an_unknown_split_and_an_unknown_option():
    with pytest.raises(
        DataError, match=r"^task icon: iconqa has no split 'dev'; allowed: train, validation, val, test$"
    ):
        read("dev")
    allowed = "choose_txt, choose_img, fill_in_blank"
    with pytest.raises(DataError, match=rf"^task icon: iconqa has no subtask 'count'; allowed: {allowed}$"):
        read("train", subtask="count")


def test_a_missing_folder(tmp_path):
    with pytest.raises(DataError) as caught:
        read("train", tmp_path)
    folder = tmp_path / BELOW / "train/choose_txt"
    assert str(caught.value) == f"task icon: {folder} cannot be read (No such file or directory)"


def test_the_folder_and_its_problems_are_noted():
    folder = FIXTURE / BELOW / "train/choose_txt"
    with watching() as opened:
        read("train")
    assert opened == {folder, folder / "17/data.json", folder / "204/data.json"}
