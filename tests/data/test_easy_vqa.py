"""easy-VQA: no two splits share an image, captions say what the questions say, other files are refused."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from equipoise.data.readers import easy_vqa
from equipoise.data.sample import Sample
from equipoise.errors import DataError

COLOURS = {"red", "green", "blue", "black", "gray", "teal", "brown", "yellow"}
IMAGES = {"align": 1600, "train": 2000, "validation": 400, "test": 1000}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Sample]]:
    return {split: easy_vqa.read("vqa", split) for split in easy_vqa.SPLITS}


def test_the_splits_hold_all_images_and_questions_and_share_none(splits):
    images = {split: {sample.images[0] for sample in samples} for split, samples in splits.items()}
    assert {split: len(found) for split, found in images.items()} == IMAGES
    for one, other in itertools.combinations(images.values(), 2):
        assert not one & other
    assert sum(len(splits[split]) for split in ("align", "train", "validation")) == 38_575
    assert len(splits["test"]) == 9_673


def test_each_sample_is_one_question_one_answer_and_one_image_that_is_there(splits):
    for samples in splits.values():
        assert len({sample.id for sample in samples}) == len(samples)
        for sample in samples[::97]:
            assert [turn.role for turn in sample.turns] == ["user", "assistant"]
            assert sample.references == (sample.turns[1].text,)
            assert sample.prompt == sample.turns[0].text
            assert sample.task == "vqa"
            assert sample.images[0].is_file()


def test_answers_are_the_published_ones(splits):
    answers = {sample.references[0] for sample in splits["train"]}
    assert answers == {"yes", "no", "circle", "rectangle", "triangle"} | COLOURS


@pytest.mark.parametrize("split", easy_vqa.SPLITS)
def test_captions_agree_with_every_question_about_the_same_image(splits, split):
    facts: dict[Path, dict[str, set[str]]] = defaultdict(lambda: {"shape": set(), "colour": set()})
    for sample in splits[split]:
        answer = sample.references[0]
        if answer not in ("yes", "no"):
            facts[sample.images[0]]["colour" if answer in COLOURS else "shape"].add(answer)
    captions = easy_vqa.read("caption", split, caption=True)
    assert len(captions) > 0.55 * IMAGES[split]
    assert len({sample.images for sample in captions}) == len(captions)
    for sample in captions:
        article, colour, shape = sample.references[0].split()
        assert article == "a"
        assert facts[sample.images[0]] == {"shape": {shape}, "colour": {colour}}
        assert sample.prompt == "Describe the image."


def test_captions_agree_with_the_pixels():
    primary = {"red": 0, "green": 1, "blue": 2}
    seen = 0
    for sample in easy_vqa.read("caption", "validation", caption=True)[:60]:
        colour = sample.references[0].split()[1]
        if colour in primary:
            with Image.open(sample.images[0]) as image:
                pixels = list(image.convert("RGB").get_flattened_data())
            vivid = max(pixels, key=lambda pixel: max(pixel) - min(pixel))
            assert vivid.index(max(vivid)) == primary[colour]
            seen += 1
    assert seen > 5


def test_an_unknown_split_names_the_known():
    with pytest.raises(DataError, match="easy_vqa has no split 'dev'; allowed: align, train, validation, test"):
        easy_vqa.read("vqa", "dev")


@pytest.mark.parametrize("content", ["{", "3", '[["q", "a"]]', '[["q", "a", "one"]]', "[null]"])
def test_files_that_are_not_easy_vqas(tmp_path, content):
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    (folder / "questions.json").write_text(content)
    with pytest.raises(DataError, match=r"is not a JSON list of \[question, answer, image id\]"):
        easy_vqa.read("vqa", "train", path=tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"questions\.json cannot be read"):
        easy_vqa.read("vqa", "train", path=tmp_path)


def test_a_folder_of_ones_own(tmp_path):
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    (folder / "questions.json").write_text(json.dumps([["what shape?", "circle", 1600], ["other split", "no", 0]]))
    [sample] = easy_vqa.read("vqa", "train", path=tmp_path)
    assert sample.images == (folder / "images" / "1600.png",)
    assert easy_vqa.read("vqa", "train", path=tmp_path, caption=True) == []  # its colour is not known


def test_without_yes_no_questions_only_shapes_and_colours_are_asked_for():
    everything, open_questions = easy_vqa.read("t", "align"), easy_vqa.read("t", "align", yes_no=False)
    assert {s.references[0] for s in everything} > {"yes", "no"}
    assert not {s.references[0] for s in open_questions} & {"yes", "no"}
    answered_otherwise = [s for s in everything if s.references[0] not in ("yes", "no")]
    assert [s.turns for s in open_questions] == [s.turns for s in answered_otherwise]
