"""What readers share: items become samples or flaws one at a time, and a flaw is one line whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.readers.reader import (
    Flaw,
    Unusable,
    check_option,
    check_split,
    items_of,
    mapping,
    printable,
    samples_of,
    text_of,
)
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError

SOURCE = Path("/data/train.json")


def sample(id: str) -> Sample:
    return Sample(id, "own", exchange("q", "a"))


def test_an_item_makes_one_sample_or_several_or_none():
    made = {"one": sample("1"), "two": [sample("2"), sample("3")], "none": []}
    rows = samples_of([(name, name) for name in made], lambda name: made[name], SOURCE)
    assert [row.id for row in rows] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("error", "flaw"),
    [
        (ValueError("box is 3;\n  expected four"), Flaw("line 2", str(SOURCE), "box is 3; expected four")),
        (TypeError("found 3; expected a text"), Flaw("line 2", str(SOURCE), "found 3; expected a text")),
        (KeyError("answer"), Flaw("line 2", str(SOURCE), "'answer' is missing")),
        (Unusable("image does not exist", Path("/data/a.png")), Flaw("line 2", "/data/a.png", "image does not exist")),
        (RecursionError("too deep"), Flaw("line 2", str(SOURCE), "too deep")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refused_item_is_a_flaw_and_the_others_are_samples(error, flaw):
    def make(item: str) -> Sample:
        if item == "bad":
            raise error
        return sample(item)

    rows = list(samples_of([("line 1", "1"), ("line 2", "bad"), ("line 3", "3")], make, SOURCE))
    assert rows == [sample("1"), flaw, sample("3")]


def test_an_item_that_breaks_in_the_middle_leaves_no_half():
    def make(item: str) -> Iterator[Sample]:
        yield sample("1")
        raise ValueError("no more")

    assert list(samples_of([("line 1", "")], make, SOURCE)) == [Flaw("line 1", str(SOURCE), "no more")]


@pytest.mark.parametrize("error", [DataError("the file is broken"), RuntimeError("a mistake of ours")])
def test_other_errors_end_the_reading(error):
    def make(item: str) -> Sample:
        raise error

    with pytest.raises(type(error), match=str(error)):
        list(samples_of([("line 1", "")], make, SOURCE))


def test_items_are_taken_one_at_a_time():
    taken = []

    def items() -> Iterator[tuple[str, str]]:
        for number in range(3):
            taken.append(number)
            yield f"line {number}", str(number)

    rows = samples_of(items(), sample, SOURCE)
    assert next(rows).id == "0"
    assert taken == [0]


def test_a_flaw_is_one_line_with_task_sample_path_and_reason():
    flaw = Flaw("7", "/data/a.png", "image does not exist")
    assert flaw.line("vqa") == "task vqa: sample 7: /data/a.png: image does not exist"


@pytest.mark.parametrize(
    ("letter", "escape"),
    [
        ("\n", r"\n"), ("\r", r"\r"), ("\x1b", r"\x1b"), ("\x07", r"\x07"), ("\x9b", r"\x9b"), ("\u2028", r"\u2028"),
        ("\u202e", r"\u202e"), ("\ud800", r"\ud800"), ("\0", r"\x00"),
    ],
)  # fmt: skip
def test_a_flaw_of_hostile_names_is_still_one_line_that_steers_no_terminal(letter, escape):
    line = Flaw(f"a{letter}b", f"/data/{letter}.png", f"found {letter}").line("vqa")
    assert line == f"task vqa: sample a{escape}b: /data/{escape}.png: found {escape}"
    assert len(line.splitlines()) == 1
    line.encode()


def test_what_can_be_printed_is_left_alone():
    assert printable("äöü 日本 😀 [red] \\n") == "äöü 日本 😀 [red] \\n"
    assert printable("a\n\tb\x1b", kept="\n\t") == "a\n\tb\\x1b"


def test_a_split_and_an_option_that_do_not_exist_are_named_with_those_that_do():
    check_split("vqa", "gqa", "train", ("train", "val"))
    check_option("vqa", "gqa", "questions", "all", ("all", "balanced"))
    with pytest.raises(DataError, match=r"^task vqa: gqa has no split 'dev'; allowed: train, val$"):
        check_split("vqa", "gqa", "dev", ("train", "val"))
    with pytest.raises(DataError, match=r"^task vqa: gqa has no questions 'some'; allowed: all, balanced$"):
        check_option("vqa", "gqa", "questions", "some", ("all", "balanced"))


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_an_object_is_asked_for(value):
    with pytest.raises(TypeError, match=r"^found .*; expected an object$"):
        mapping(value)
    assert mapping({"a": value}) == {"a": value}


@pytest.mark.parametrize("value", [None, [], "text", {"a": 1}])
def test_a_list_is_asked_for(value):
    with pytest.raises(TypeError, match=r"^choices is .*; expected a list of at least one item$"):
        items_of(value, "choices")
    assert items_of([value], "choices") == [value]


def test_a_text_is_asked_for():
    for value in (None, 3, ["a"], b"a"):
        with pytest.raises(TypeError, match=r"^answer is .*; expected a text$"):
            text_of(value, "answer")
    for value in ("", " \n"):
        with pytest.raises(ValueError, match=r"^answer is empty; expected a text$"):
            text_of(value, "answer")
        assert text_of(value, "answer", may_be_empty=True) == ""
    assert text_of("  a b\n", "answer") == "a b"


def test_what_was_found_is_shown_in_part():
    long: Any = {"key": "x" * 1_000}
    with pytest.raises(TypeError) as caught:
        text_of(long, "answer")
    assert len(str(caught.value)) < 100
