"""The JSON-lines reader: what it reads, and for each bad line a message with its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.readers import jsonl
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError

GOOD = {"prompt": "q", "answer": "a"}


def rows_of(folder: Path, *rows: Any) -> list[Sample | Flaw]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return list(jsonl.read("own", "train", path=folder))


def read(folder: Path, *rows: Any) -> list[Sample]:
    samples = rows_of(folder, *rows)
    assert not [row for row in samples if isinstance(row, Flaw)]
    return samples


def mistake(folder: Path, *rows: Any) -> Flaw:
    [flaw] = [row for row in rows_of(folder, *rows) if isinstance(row, Flaw)]
    assert len(flaw.line("own").splitlines()) == 1
    return flaw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / "images" / name).touch()
    (tmp_path / "outside.png").touch()
    return folder


def test_a_question_and_its_answer(folder):
    [sample] = read(folder, GOOD)
    assert sample == Sample("1", "own", (Turn("user", "q"), Turn("assistant", "a")), references=("a",))


def test_a_conversation(folder):
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user", "assistant")]
    [sample] = read(folder, {"messages": messages, "id": "x", "references": ["a", "b"]})
    assert [(turn.role, turn.text) for turn in sample.turns] == [(m["role"], m["content"]) for m in messages]
    assert (sample.id, sample.prompt, sample.references) == ("x", "u", ("a", "b"))


@pytest.mark.parametrize("value", ["a.wav", ["a.wav"]])
def test_audio_is_relative_to_the_folder(folder, value):
    (folder / "a.wav").touch()
    [sample] = read(folder, {**GOOD, "audio" if isinstance(value, str) else "audios": value})
    assert (sample.audios, sample.images) == ((folder / "a.wav",), ())


def test_audio_that_does_not_exist_is_called_audio(folder):
    assert mistake(folder, {**GOOD, "audio": "b.wav"}) == Flaw("line 1", str(folder / "b.wav"), "audio does not exist")


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [("image", "images/a.png", ["a.png"]), ("images", ["images/b.png", "images/a.png"], ["b.png", "a.png"])],
)
def test_images_are_relative_to_the_folder(folder, key, value, names):
    [sample] = read(folder, {**GOOD, key: value})
    assert sample.images == tuple(folder / "images" / name for name in names)


def test_empty_lines_are_skipped_and_counted(folder):
    assert [sample.id for sample in read(folder, GOOD, "", "  ", GOOD)] == ["1", "4"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "Expecting property name"),
        ("[1]", "found [1]; expected an object"),
        ({"prompt": "q"}, "'answer' is missing"),
        ({"answer": "a"}, "'prompt' is missing"),
        ({"prompt": 3, "answer": "a"}, "prompt is 3; expected a text"),
        ({"prompt": "q", "answer": None}, "answer is None; expected a text"),
        ({"prompt": "q", "answer": " "}, "answer is empty; expected a text"),
        ({"messages": []}, "messages is []; expected a list of at least one item"),
        ({"messages": [{"role": "user", "content": "q"}]}, "and end with an answer"),
        ({"messages": [{"role": "user", "content": "q"}] * 2}, "and end with an answer"),
        ({"messages": [{"role": "human", "content": "q"}]}, "role is 'human'; allowed: system, user, assistant"),
        ({"messages": [{"content": "q"}]}, "'role' is missing"),
        ({"messages": [{"role": "user"}]}, "'content' is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "expected a text"),
        ({**GOOD, "image": "images/none.png"}, "image does not exist"),
        ({**GOOD, "image": "images"}, "image does not exist"),
        ({**GOOD, "image": "../outside.png"}, "image lies outside the task's folder and its media_roots"),
        ({**GOOD, "image": "images/../../outside.png"}, "lies outside the task's folder and its media_roots"),
        ({**GOOD, "image": "/etc/passwd"}, "image lies outside the task's folder and its media_roots"),
        ({**GOOD, "images": ["images/a.png", 3]}, "image is 3; expected a path below"),
        ({**GOOD, "references": [1]}, "a reference is 1; expected a text"),
        ({**GOOD, "references": []}, "references is []; expected a list of at least one item"),
        ({**GOOD, "references": "yes"}, "references is 'yes'; expected a list of at least one item"),
        ({**GOOD, "box": [0, 0, 1]}, "expected left, top, right, bottom as shares from 0 to 1"),
        ({**GOOD, "box": [0, 0, 64, 64]}, "expected left, top, right, bottom as shares from 0 to 1"),
        ({**GOOD, "box": [0.5, 0, 0.4, 1]}, "its left edge lies beyond its right"),
    ],
)
def test_a_bad_line_is_named_by_its_number(folder, row, reason):
    flaw = mistake(folder, GOOD, "", row, GOOD)
    assert flaw.id == "line 3"
    assert reason in flaw.reason


def test_a_link_may_not_lead_outside(folder):
    (folder / "images" / "link.png").symlink_to(folder.parent / "outside.png")
    assert (
        "lies outside the task's folder and its media_roots"
        in mistake(folder, {**GOOD, "image": "images/link.png"}).reason
    )


def test_a_missing_file_and_a_line_that_is_not_text(folder):
    with pytest.raises(DataError, match=r"train\.jsonl cannot be read"):
        list(jsonl.read("own", "train", path=folder))
    (folder / "train.jsonl").write_bytes(b'{"prompt": "q", "answer": "a"}\n\xff\xfe\n{"prompt": "q", "answer": "a"}\n')
    first, flaw, last = jsonl.read("own", "train", path=folder)
    assert (first.id, flaw.id, last.id) == ("1", "line 2", "3")
    assert "'utf-8' codec can't decode byte 0xff" in flaw.reason


def test_a_file_where_the_folder_is_wanted(folder):
    (folder / "train.jsonl").touch()
    with pytest.raises(DataError, match=r"train\.jsonl is a file; .* the folder that holds validation\.jsonl"):
        list(jsonl.read("own", "validation", path=folder / "train.jsonl"))


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_only_line_feeds_end_a_line(folder, separator):
    [sample] = read(folder, json.dumps({"prompt": f"one{separator}two", "answer": "a"}, ensure_ascii=False))
    assert sample.prompt == f"one{separator}two"


def test_references_that_are_one_text_are_not_its_letters(folder):
    assert "expected a list" in mistake(folder, {**GOOD, "references": "yes"}).reason


def test_a_box_and_a_picture_without_a_question(folder):
    [sample] = read(folder, {"prompt": "", "answer": "a", "image": "images/a.png", "box": [0, 0.25, 1, 0.5]})
    assert (sample.prompt, sample.box) == ("", (0.0, 0.25, 1.0, 0.5))


def test_good_lines_around_a_bad_one_are_read(folder):
    assert [row.id for row in rows_of(folder, GOOD, "{", GOOD)] == ["1", "line 2", "3"]


@pytest.mark.parametrize(
    "roles", [["system", "assistant"], ["assistant", "assistant"], ["assistant", "user", "assistant"]]
)
def test_a_conversation_begins_with_a_user(folder, roles):
    mistake(folder, {"messages": [{"role": role, "content": "t"} for role in roles]})


def test_an_image_name_that_is_too_long(folder):
    assert mistake(folder, {**GOOD, "image": "x" * 300}).id == "line 1"
