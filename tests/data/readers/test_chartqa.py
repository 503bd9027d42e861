"""ChartQA: every split of the fixture as written by hand, by who asked, and each kind of flaw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _published import mistake

from equipoise.data.readers.chartqa import READER
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "chartqa"


def read(split: str, path: Path = FIXTURE, **options: str) -> list[Sample | Flaw]:
    return list(READER.read("chart", split, path, **options))


def sample(identity: str, question: str, answer: str, image: str) -> Sample:
    turns = (Turn("user", question), Turn("assistant", answer))
    return Sample(identity, "chart", turns, (FIXTURE / "ChartQA Dataset" / image,), (answer,))


HUMAN = [
    sample("human-1", "How many more plums than pears are there?", "12", "train/png/1042.png"),
    sample("human-2", "Is the blue bar the tallest?", "Yes", "train/png/1042.png"),
]
AUGMENTED = [
    sample("augmented-1", "How many ships were built in 2002?", "16", "train/png/two_col_77.png"),
    sample("augmented-2", "In what year were most ships built?", "2003", "train/png/two_col_77.png"),
]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "chartqa")


def changed(folder: Path, change: Callable[[list[Any]], object]) -> list[Sample | Flaw]:
    """Read train's questions by machine after a change of them."""
    source = folder / "ChartQA Dataset/train/train_augmented.json"
    content = json.loads(source.read_text())
    change(content)
    source.write_text(json.dumps(content))
    return read("train", folder, subset="augmented")


def test_train_by_who_asked():
    assert read("train", subset="human") == HUMAN
    assert read("train", subset="augmented") == AUGMENTED
    assert read("train") == read("train", subset="both") == HUMAN + AUGMENTED


@pytest.mark.parametrize("split", ["validation", "val"])
def test_validation(split):
    assert read(split) == [
        sample("human-1", "What is the sum of both bars?", "30", "val/png/OECD_BREAD_000007.png"),
        sample("human-2", "Which country eats more bread?", "Chile", "val/png/OECD_BREAD_000007.png"),
        sample("augmented-1", "How much tea was drunk?", "6", "val/png/multi_col_5.png"),
        sample("augmented-2", "What was drunk most?", "Milk", "val/png/multi_col_5.png"),
    ]


def test_test_has_answers():
    assert read("test") == [
        sample("human-1", "What is the ratio of B to A?", "5", "test/png/88.png"),
        sample("human-2", "Which letter has the lower bar?", "A", "test/png/88.png"),
        sample("augmented-1", "What is the value of B?", "25", "test/png/88.png"),
        sample("augmented-2", "What is the value of A?", "5", "test/png/88.png"),
    ]


def test_what_the_reader_says_of_itself():
    assert READER.splits == ("train", "validation", "val", "test")
    assert READER.unanswered == frozenset()
    assert READER.response_format == "Answer the question using a single word or phrase."
    assert READER.needs_path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[0].pop("label"), "'label' is missing"),
        (lambda rows: rows[0].update(label=""), "label is empty; expected a text"),
        (lambda rows: rows[0].update(label=16), "label is 16; expected a text"),
        (lambda rows: rows[0].pop("query"), "'query' is missing"),
        (lambda rows: rows[0].update(query=None), "query is None; expected a text"),
        (lambda rows: rows[0].pop("imgname"), "'imgname' is missing"),
        (lambda rows: rows.__setitem__(0, []), "found []; expected an object"),
    ],
)
def test_a_question_that_is_no_sample_is_a_flaw_among_the_others(copied, change, reason):
    flaw, other = changed(copied, change)
    assert flaw == Flaw("augmented-1", str(copied / "ChartQA Dataset/train/train_augmented.json"), reason)
    assert other.id == "augmented-2"


def test_an_image_that_is_not_there_or_outside_the_charts_or_no_name(copied):
    charts = copied / "ChartQA Dataset/train/png"
    missing = Flaw("augmented-1", str(charts / "none.png"), "image does not exist")
    assert changed(copied, lambda rows: rows[0].update(imgname="none.png"))[0] == missing
    outside = Flaw(
        "augmented-1", str(charts / "../train_human.json"), "image lies outside the task's folder and its media_roots"
    )
    assert changed(copied, lambda rows: rows[0].update(imgname="../train_human.json"))[0] == outside
    flaw = changed(copied, lambda rows: rows[0].update(imgname=1042))[0]
    assert (flaw.id, flaw.path) == ("augmented-1", str(charts.parent / "train_augmented.json"))
    assert flaw.reason.startswith("image is 1042; expected a path below ")


def test_an_unknown_split_and_an_unknown_option():
    with pytest.raises(
        DataError, match=r"^task chart: chartqa has no split 'dev'; allowed: train, validation, val, test$"
    ):
        read("dev")
    with pytest.raises(
        DataError, match=r"^task chart: chartqa has no subset 'robot'; allowed: human, augmented, both$"
    ):
        read("train", subset="robot")


def test_a_file_that_is_cut_short(copied):
    source = copied / "ChartQA Dataset/train/train_augmented.json"
    source.write_bytes(source.read_bytes().rstrip()[:-20])
    assert "train_augmented.json is cut short or no JSON after 1 items" in mistake(READER.read, "train", copied)


def test_a_missing_file(copied):
    (copied / "ChartQA Dataset/train/train_human.json").unlink()
    assert len(read("train", copied, subset="augmented")) == 2
    with pytest.raises(DataError, match=r"train_human\.json cannot be read \(No such file"):
        read("train", copied)
