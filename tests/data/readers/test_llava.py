"""LLaVA-style JSON, and ShareGPT4V, which is such a file with a place of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _published import FIXTURES, flaws, mistake, samples

from equipoise.data.readers.llava import READER
from equipoise.data.sample import Sample, Turn, exchange

ROOT = FIXTURES / "llava"
MIXTURE = ROOT / "llava_v1_5_mix665k.json"
SQUARE = (ROOT / "coco/train2017/000000000202.jpg",)
REGION = "Please provide a short description for this region: [0.3, 0.25, 0.7, 0.75]."


def said(*texts: str, first: str = "human") -> list[dict[str, str]]:
    speakers = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    return [{"from": speakers[number % 2], "value": text} for number, text in enumerate(texts)]


def write(folder: Path, *rows: Any, name: str = "train.json") -> Path:
    (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_the_mixture():
    question = "What colour is the square?\nAnswer the question using a single word or phrase."
    markup = exchange(
        "How do I put a picture into a page? I tried <image>.", 'Use the img element: `<img src="a.png">`.'
    )
    assert samples(READER.read, "train", MIXTURE) == [
        Sample(
            "000000000202",
            "own",
            (*exchange(question, "Red"), *exchange("Is it round?", "No")),
            images=SQUARE,
            references=("No",),
        ),
        Sample("000000000202#2", "own", exchange(REGION, "A red square."), SQUARE, ("A red square.",)),
        Sample("Xy12Ab_0", "own", markup, references=(markup[1].text,)),
    ]


def test_a_folder_has_a_file_a_split(folder):
    write(folder, {"id": 1, "conversations": said("q", "a")})
    write(folder, {"id": 2, "conversations": said("q", "b")}, name="validation.json")
    assert [row.id for row in samples(READER.read, "validation", folder)] == ["2"]
    assert [row.id for row in samples(READER.read, "train", folder)] == ["1"]


def test_images_may_be_elsewhere(tmp_path, folder):
    write(tmp_path, {"id": "x", "image": "a.png", "conversations": said("<image>\nq", "a")})
    [row] = samples(READER.read, "train", tmp_path / "train.json", image_folder=str(folder))
    assert row.images == (folder / "a.png",)


def test_several_images_and_a_clip_leave_the_text(folder):
    row = {
        "id": "x",
        "image": ["b.png", "a.png"],
        "audio": "a.wav",
        "conversations": said("<image><image>\nWhich is louder: <audio>?", "The <image> tag.", "Why?", "Listen."),
    }
    [sample] = samples(READER.read, "train", write(folder, row))
    assert (sample.images, sample.audios) == ((folder / "b.png", folder / "a.png"), (folder / "a.wav",))
    assert [turn.text for turn in sample.turns] == ["Which is louder: ?", "The <image> tag.", "Why?", "Listen."]


@pytest.mark.parametrize("image", [{}, {"image": None}, {"image": []}])
@pytest.mark.parametrize("texts", [("What is <image>?", "a"), ("q", "<image>", "<image>", "a")])
def test_without_an_image_the_placeholder_in_a_text_is_a_text(folder, image, texts):
    [sample] = samples(READER.read, "train", write(folder, {"id": "x", **image, "conversations": said(*texts)}))
    assert ([turn.text for turn in sample.turns], sample.images) == (list(texts), ())


@pytest.mark.parametrize(
    ("row", "text", "reason"),
    [
        ({"img": "a.png"}, "<image>\nq", "it has 1 time <image> and no 'image' (keys: id, img, conversations)"),
        ({"image": None}, "q\n<image> ", "it has 1 time <image> and no 'image' (keys: id, image, conversations)"),
        ({"image": []}, "<image><image>q", "it has 2 times <image> and no 'image' (keys: id, image, conversations)"),
        ({}, "<image>", "it has 1 time <image> and no 'image' (keys: id, conversations)"),
        ({"image": "a.png"}, "<image>\n<audio>\nq", "it has 1 time <audio> and no 'audio' (keys: id, image, conv"),
        ({"audio": "a.wav"}, "q\n<audio> <image>", "it has 1 time <image> and no 'image' (keys: id, audio, conv"),
    ],
)
def test_a_question_about_a_picture_that_is_not_named(folder, row, text, reason):
    """The model would be trained blind, on a question that holds the text `<image>`."""
    [flaw] = flaws(READER.read, "train", write(folder, {"id": "x", **row, "conversations": said(text, "a")}))
    assert flaw.path == str(folder / "train.json")
    assert flaw.reason.startswith(reason)


def test_an_image_without_a_placeholder(folder):
    [sample] = samples(
        READER.read, "train", write(folder, {"id": "x", "image": "a.png", "conversations": said("q", "a")})
    )
    assert (sample.prompt, sample.images) == ("q", (folder / "a.png",))


def test_a_system_turn_is_kept_and_a_first_answer_is_not(folder):
    system = {"from": "system", "value": "Be brief."}
    rows = [{"conversations": [system, *said("q", "a")]}, {"conversations": said("Hello.", "q", "a", first="gpt")}]
    with_system, with_greeting = samples(READER.read, "train", write(folder, *rows))
    assert with_system.turns == (Turn("system", "Be brief."), *exchange("q", "a"))
    assert with_greeting.turns == exchange("q", "a")
    assert [with_system.id, with_greeting.id] == ["item 1", "item 2"]


GOOD = {"id": "x", "image": "a.png", "conversations": said("<image>\nq", "a")}


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        ({"image": "none.png"}, "none.png", "image does not exist"),
        ({"image": "../outside.png"}, "../outside.png", "image lies outside the task's folder and its media_roots"),
        ({"audio": "b.wav"}, "b.wav", "audio does not exist"),
        ({"image": 3}, "train.json", "image is 3; expected a path below"),
        ({"image": ["a.png", "b.png"]}, "train.json", "it has 1 times <image> for 2 image files; expected one each"),
        ({"audio": "a.wav", "conversations": said("<audio><audio>", "a")}, "train.json", "it has 2 times <audio>"),
        ({"conversations": []}, "train.json", "conversations is []; expected a list"),
        ({"conversations": "q"}, "train.json", "conversations is 'q'; expected a list"),
        ({"conversations": ["q"]}, "train.json", "found 'q'; expected an object"),
        ({"conversations": [{"from": "human"}]}, "train.json", "'value' is missing (keys: from); expected [{\"from\""),
        ({"conversations": [{"value": "q"}]}, "train.json", "'from' is missing (keys: value); expected [{\"from\""),
        ({"conversations": [{"from": "human", "value": None}]}, "train.json", "value None; expected texts"),
        ({"conversations": [{"from": "gpt", "value": 4}]}, "train.json", 'value is the number 4; write "4"'),
        ({"conversations": [{"from": "gpt", "value": 0.5}]}, "train.json", 'value is the number 0.5; write "0.5"'),
        ({"conversations": [{"from": "gpt", "value": True}]}, "train.json", 'the truth value true; write "true"'),
        ({"conversations": [{"from": 1, "value": "q"}]}, "train.json", "found from 1"),
        ({"conversations": said("<image>", "a")}, "train.json", "value is empty; expected a text"),
        ({"conversations": said("q", " ")}, "train.json", "value is empty; expected a text"),
        ({"conversations": said("q")}, "train.json", "and end with an answer"),
        ({"conversations": said("a", first="gpt")}, "train.json", "must begin with a user"),
        (
            {"conversations": [{"from": "bing", "value": "q"}]},
            "train.json",
            "from is 'bing'; allowed: human, gpt, system",
        ),
    ],
)
def test_a_conversation_that_cannot_be_used(folder, change, path, reason):
    write(folder, {**GOOD, **change}, {**GOOD, "id": "y"})
    [flaw] = flaws(READER.read, "train", folder)
    assert (flaw.id, flaw.path) == ("x", str(folder / path))
    assert reason in flaw.reason
    assert [row.id for row in READER.read("own", "train", folder)] == ["x", "y"]


def test_an_item_of_another_form_is_told_the_form(folder):
    [flaw] = flaws(READER.read, "train", write(folder, {"image": "a.png", "question": "q", "answer": "a"}))
    assert flaw.reason == (
        "'conversations' is missing (keys: image, question, answer); "
        'expected [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]; '
        "the jsonl reader takes prompt and answer, or messages"
    )


def test_a_row_that_is_no_object(folder):
    [flaw] = flaws(READER.read, "train", write(folder, [1]))
    assert (flaw.id, flaw.reason) == ("item 1", "found [1]; expected an object")


@pytest.mark.parametrize("id", ["", None, [1], 1.5])
def test_an_id_that_is_none(folder, id):
    [sample] = samples(READER.read, "train", write(folder, {**GOOD, "id": id}))
    assert sample.id == "item 1"


def test_one_file_is_for_training():
    assert mistake(READER.read, "test", MIXTURE) == "task own: llava has no split 'test'; allowed: train"


def test_files_that_are_missing_or_cut_short(folder):
    assert "train.json cannot be read" in mistake(READER.read, "train", folder)
    write(folder, GOOD, {**GOOD, "id": "y"})
    content = (folder / "train.json").read_text(encoding="utf-8")
    (folder / "train.json").write_text(content[:-20], encoding="utf-8")
    assert "train.json is cut short or no JSON after 1 items" in mistake(READER.read, "train", folder)
