"""A-OKVQA: every split of the fixture as written by hand, in both forms, and each kind of flaw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _published import mistake

from equipoise.data.readers.aokvqa import READER
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "aokvqa"
TRAIN = "aokvqa_v1p0_train.json"
ONE, TWO, THREE = "2aFixtureTrainOne11111", "2aFixtureTrainTwo22222", "2aFixtureTrainThree333"
LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."


def read(split: str, path: Path = FIXTURE, **options: str) -> list[Sample | Flaw]:
    return list(READER.read("aok", split, path, **options))


def sample(identity: str, prompt: str, answer: str, image: str, references: tuple[str, ...] = ()) -> Sample:
    turns = (Turn("user", prompt), Turn("assistant", answer))
    return Sample(identity, "aok", turns, (FIXTURE / image,), references)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "aokvqa")


def changed(folder: Path, change: Callable[[list[Any]], object], **options: str) -> list[Sample | Flaw]:
    """Read train after a change of its questions."""
    content = json.loads((folder / TRAIN).read_text())
    change(content)
    (folder / TRAIN).write_text(json.dumps(content))
    return read("train", folder, **options)


def test_multiple_choice_lists_the_choices_and_learns_the_letter():
    ball = f"What is the ball on the grass used for?\nA. bowling\nB. football\nC. tennis\nD. golf\n{LETTER}"
    season = f"Which season is it likely to be?\nA. winter\nB. spring\nC. autumn\nD. none\n{LETTER}"
    warm = f"What keeps the house warm?\nA. sun\nB. stove\nC. snow\nD. wind\n{LETTER}"
    expected = [
        sample(ONE, ball, "B", "train2017/000000000041.jpg", ("football", "B")),
        sample(TWO, season, "A", "train2017/000000000512.jpg", ("winter", "A")),
        sample(THREE, warm, "B", "train2017/000000000512.jpg", ("stove", "B")),
    ]
    assert read("train") == read("train", form="multiple_choice") == expected


def test_direct_answers_learn_the_most_frequent_one_and_leave_out_what_is_difficult():
    ball = ("football", "soccer", "soccer", "football", "football", "playing", "soccer", "football", "game", "soccer")
    warm = ("stove", "fire", "oven", "fire", "heater", "heating", "", "chimney", "fire", "stove")
    assert read("train", form="direct_answer") == [
        sample(
            ONE, f"What is the ball on the grass used for?\n{SHORT}", "football", "train2017/000000000041.jpg", ball
        ),
        sample(THREE, f"What keeps the house warm?\n{SHORT}", "fire", "train2017/000000000512.jpg", warm),
    ]


@pytest.mark.parametrize("split", ["validation", "val"])
def test_validation(split):
    lorry = f"What can this vehicle carry?\nA. goods\nB. water\nC. fire\nD. birds\n{LETTER}"
    flag = f"Which country is the flag from?\nA. japan\nB. france\nC. italy\nD. spain\n{LETTER}"
    assert read(split) == [
        sample("2bFixtureValOne4444444", lorry, "A", "val2017/000000000077.jpg", ("goods", "A")),
        sample("2bFixtureValTwo5555555", flag, "A", "val2017/000000000081.jpg", ("japan", "A")),
    ]
    goods = ("goods",) * 6 + ("cargo",) * 4
    prompt = f"What can this vehicle carry?\n{SHORT}"
    assert read(split, form="direct_answer") == [
        sample("2bFixtureValOne4444444", prompt, "goods", "val2017/000000000077.jpg", goods)
    ]


def test_test_has_choices_and_no_answers():
    drink = f"What would you drink from this?\nA. tea\nB. soup\nC. oil\nD. sand\n{LETTER}"
    origin = f"Where does such a cup come from?\nA. factory\nB. tree\nC. river\nD. cow\n{LETTER}"
    image = "test2017/000000131072.jpg"
    assert read("test") == [
        sample("2cFixtureTestOne666666", drink, "", image),
        sample("2cFixtureTestTwo777777", origin, "", image),
    ]
    prompt = f"What would you drink from this?\n{SHORT}"
    assert read("test", form="direct_answer") == [sample("2cFixtureTestOne666666", prompt, "", image)]


def test_what_the_reader_says_of_itself():
    assert READER.splits == ("train", "validation", "val", "test")
    assert READER.unanswered == {"test"}
    assert READER.response_format is None
    assert READER.needs_path


CHOICE = "correct_choice_idx"


@pytest.mark.parametrize(
    ("change", "identity", "reason"),
    [
        (lambda rows: rows[1].pop("question"), TWO, "'question' is missing"),
        (lambda rows: rows[1].update(question=1), TWO, "question is 1; expected a text"),
        (lambda rows: rows[1].pop("image_id"), TWO, "'image_id' is missing"),
        (lambda rows: rows[1].update(image_id="512"), TWO, "image_id is '512'; expected a whole number"),
        (lambda rows: rows[1].pop("question_id"), "item 2", "'question_id' is missing"),
        (lambda rows: rows[1].update(question_id=7), "7", "question_id is 7; expected a text"),
        (lambda rows: rows.__setitem__(1, 3), "item 2", "found 3; expected an object"),
        (lambda rows: rows[1].pop("choices"), TWO, "'choices' is missing"),
        (lambda rows: rows[1].update(choices=[]), TWO, "choices is []; expected a list of at least one item"),
        (lambda rows: rows[1]["choices"].__setitem__(2, ""), TWO, "a choice is empty; expected a text"),
        (lambda rows: rows[1].update(choices=["x"] * 27), TWO, "there are 27 choices; at most 26 are allowed"),
        (lambda rows: rows[1].pop(CHOICE), TWO, f"'{CHOICE}' is missing"),
        (lambda rows: rows[1].update({CHOICE: 4}), TWO, f"{CHOICE} is 4; allowed: 0 to 3"),
        (lambda rows: rows[1].update({CHOICE: -1}), TWO, f"{CHOICE} is -1; allowed: 0 to 3"),
        (lambda rows: rows[1].update({CHOICE: None}), TWO, f"{CHOICE} is None; expected a whole number"),
    ],
)
def test_a_question_that_is_no_sample_is_a_flaw_among_the_others(copied, change, identity, reason):
    first, flaw, last = changed(copied, change)
    assert flaw == Flaw(identity, str(copied / TRAIN), reason)
    assert (first.id, last.id) == (ONE, THREE)


def test_as_many_choices_as_letters(copied):
    choices = [f"choice {number}" for number in range(26)]
    found = changed(copied, lambda rows: rows[0].update(choices=choices, correct_choice_idx=25))[0]
    assert found.references == ("choice 25", "Z")
    assert "\nZ. choice 25\n" in found.prompt


@pytest.mark.parametrize(
    ("change", "identity", "reason"),
    [
        (lambda rows: rows[0].pop("direct_answers"), ONE, "'direct_answers' is missing"),
        (
            lambda rows: rows[0].update(direct_answers=[]),
            ONE,
            "direct_answers is []; expected a list of at least one item",
        ),
        (lambda rows: rows[0].update(direct_answers=[None]), ONE, "one of direct_answers is None; expected a text"),
        (lambda rows: rows[0].update(direct_answers=[""]), ONE, "all answers are empty; expected a text"),
        (lambda rows: rows[0].update(question=""), ONE, "question is empty; expected a text"),
        (lambda rows: rows.__setitem__(0, 3), "item 1", "found 3; expected an object"),
    ],
)
def test_flaws_of_direct_answers(copied, change, identity, reason):
    flaw, other = changed(copied, change, form="direct_answer")
    assert flaw == Flaw(identity, str(copied / TRAIN), reason)
    assert other.id == THREE


def test_direct_answers_need_no_choices(copied):
    assert len(changed(copied, lambda rows: rows[0].pop("choices"), form="direct_answer")) == 2


def test_an_image_that_is_not_there(copied):
    image = copied / "train2017/000000000041.jpg"
    image.unlink()
    assert read("train", copied)[0] == Flaw(ONE, str(image), "image does not exist")


def test_an_unknown_split_and_an_unknown_option():
    with pytest.raises(
        DataError, match=r"^task aok: aokvqa has no split 'dev'; allowed: train, validation, val, test$"
    ):
        read("dev")
    with pytest.raises(
        DataError, match=r"^task aok: aokvqa has no form 'mc'; allowed: multiple_choice, direct_answer$"
    ):
        read("train", form="mc")


def test_a_file_that_is_cut_short(copied):
    (copied / TRAIN).write_bytes((copied / TRAIN).read_bytes().rstrip()[:-20])
    assert "aokvqa_v1p0_train.json is cut short or no JSON after 2 items" in mistake(READER.read, "train", copied)


def test_a_missing_file(tmp_path):
    assert "aokvqa_v1p0_train.json cannot be read (No such file" in mistake(READER.read, "train", tmp_path)
