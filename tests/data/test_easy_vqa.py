"""easy-VQA: no two splits share an image, captions say what the questions say, boxes hold the shapes, and flaws."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from equipoise.data.readers import easy_vqa
from equipoise.data.readers.files import watching
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import EASY_VQA, fetch

COLOURS = {"red", "green", "blue", "black", "gray", "teal", "brown", "yellow"}
IMAGES = {"align": 1600, "train": 2000, "validation": 400, "test": 1000}


def read(split: str, path: Path | None = None, **options: object) -> list[Sample]:
    """The samples of a split without flaws."""
    rows = list(easy_vqa.read("vqa", split, path, **options))
    assert [row for row in rows if isinstance(row, Flaw)] == []
    return rows


def refused(split: str, path: Path | None = None, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        list(easy_vqa.read("vqa", split, path, **options))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def write(root: Path, *rows: object, images: dict[int, Image.Image] | None = None) -> Path:
    """easy-VQA's layout, of training images alone; an image is one grey pixel unless it is given."""
    (root / "data" / "train" / "images").mkdir(parents=True)
    (root / "data" / "train" / "questions.json").write_text(json.dumps(rows))
    for number, image in {1600: Image.new("RGB", (1, 1)), **(images or {})}.items():
        image.save(root / "data" / "train" / "images" / f"{number}.png")
    return root


def about(number: int, colour: str = "red", shape: str = "circle") -> list[object]:
    """The two questions that a caption needs."""
    return [["what color is the shape?", colour, number], ["what shape is in the image?", shape, number]]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Sample]]:
    return {split: read(split) for split in easy_vqa.SPLITS}


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
    captions = read(split, kind="caption")
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
    for sample in read("validation", kind="caption")[:60]:
        colour = sample.references[0].split()[1]
        if colour in primary:
            with Image.open(sample.images[0]) as image:
                pixels = list(image.convert("RGB").get_flattened_data())
            vivid = max(pixels, key=lambda pixel: max(pixel) - min(pixel))
            assert vivid.index(max(vivid)) == primary[colour]
            seen += 1
    assert seen > 5


def test_ids_and_order_are_those_that_earlier_runs_wrote_down(splits):
    rows = json.loads((fetch(EASY_VQA) / "easy_vqa/data/test/questions.json").read_text())
    found = [(sample.id, sample.prompt, sample.references[0]) for sample in splits["test"]]
    assert found == [
        (f"test-{image}-{place}", question, answer) for place, (question, answer, image) in enumerate(rows)
    ]
    assert (splits["train"][0].id, splits["train"][-1].id) == ("train-1600-0", "train-3599-19303")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_boxes_and_regions_are_those_of_the_captions(split):
    captions, boxes, regions = (read(split, kind=kind) for kind in ("caption", "box", "region"))
    assert len(captions) == len(boxes) == len(regions)
    for caption, box, region in zip(captions, boxes, regions, strict=True):
        assert caption.images == box.images == region.images
        assert caption.id == box.id == region.id
        assert caption.box is None
        assert box.box == region.box
        said = caption.references[0]
        left, top, right, bottom = (f"{edge:.2f}" for edge in box.box)
        assert box.prompt == f"Provide the bounding box coordinate of the region this sentence describes: {said}."
        assert box.turns[-1].text == f"[{left}, {top}, {right}, {bottom}]"
        assert region.prompt == f"Provide a short description for this region: [{left}, {top}, {right}, {bottom}]."
        assert (region.turns[-1].text, region.references) == (said, (said,))
        assert box.references == ("[{:.6f}, {:.6f}, {:.6f}, {:.6f}]".format(*box.box),)


def test_beyond_a_box_is_background_and_at_its_edges_is_shape():
    """By the colour that the caption names: what is nearer to it than to the background is the shape's."""
    rgb = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
    seen = Counter()
    for sample in read("validation", kind="box"):
        colour, shape = sample.prompt.removesuffix(".").split()[-2:]
        if colour in rgb:
            with Image.open(sample.images[0]) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=int)
            background = np.median(pixels.reshape(-1, 3), axis=0)  # most of each image
            ours = abs(pixels - rgb[colour]).sum(axis=2) < abs(pixels - background).sum(axis=2)
            left, top, right, bottom = (round(edge * 64) for edge in sample.box)
            assert not np.delete(ours, np.s_[top:bottom], axis=0).any()
            assert not np.delete(ours, np.s_[left:right], axis=1).any()
            # A tip, or an edge half-way through a pixel, may be nearer to the background.
            assert ours[top : top + 2].any()
            assert ours[bottom - 2 : bottom].any()
            assert ours[:, left : left + 2].any()
            assert ours[:, right - 2 : right].any()
            seen[shape] += 1
    assert min(seen[shape] for shape in easy_vqa.SHAPES) > 20


@pytest.mark.parametrize(
    ("size", "shape", "corners", "box"),
    [
        ((64, 64), "rectangle", (16, 8, 47, 31), (0.25, 0.125, 0.75, 0.5)),
        ((64, 64), "ellipse", (0, 0, 63, 63), (0.0, 0.0, 1.0, 1.0)),
        ((100, 50), "rectangle", (10, 20, 29, 24), (0.1, 0.4, 0.3, 0.5)),  # wider than high
        ((64, 64), "rectangle", (63, 5, 63, 5), (63 / 64, 5 / 64, 1.0, 6 / 64)),  # a single pixel
    ],
)
def test_a_box_is_where_the_shape_was_drawn(tmp_path, size, shape, corners, box):
    image = Image.new("RGB", size, (250, 250, 240))
    getattr(ImageDraw.Draw(image), shape)(corners, fill=(200, 30, 40))
    [sample] = read("train", write(tmp_path, *about(1601), images={1601: image}), kind="box")
    assert sample.box == pytest.approx(box)


@pytest.mark.parametrize(("share", "edge"), [(0.2, 10), (0.3, 9)])
def test_pixels_that_a_smoothed_edge_hardly_covers_are_not_the_shapes(tmp_path, share, edge):
    image = Image.new("RGB", (64, 64), (200, 200, 200))
    image.paste((0, 0, 0), (10, 10, 20, 20))
    image.paste((round(200 * (1 - share)),) * 3, (9, 10, 10, 20))
    [sample] = read("train", write(tmp_path, *about(1601), images={1601: image}), kind="box")
    assert sample.box == pytest.approx((edge / 64, 10 / 64, 20 / 64, 20 / 64))


def test_a_shape_fainter_than_its_background_is_found(tmp_path):
    image = Image.new("RGB", (64, 64), (100, 100, 100))
    image.paste((101, 100, 100), (32, 0, 64, 16))
    [sample] = read("train", write(tmp_path, *about(1601), images={1601: image}), kind="region")
    assert sample.box == (0.5, 0.0, 1.0, 0.25)


def test_colours_that_are_equally_bright_are_told_apart(tmp_path):
    image = Image.new("RGB", (64, 64), (100, 100, 100))
    image.paste((150, 50, 100), (0, 0, 16, 32))
    [sample] = read("train", write(tmp_path, *about(1601), images={1601: image}), kind="box")
    assert sample.box == (0.0, 0.0, 0.25, 0.5)


def test_a_box_depends_on_its_image(tmp_path):
    image = Image.new("RGB", (2, 2))
    image.putpixel((0, 0), (9, 9, 9))
    root = write(tmp_path, *about(1601), images={1601: image})
    for kind, watched in (("box", True), ("caption", False)):
        with watching() as opened:
            read("train", root, kind=kind)
        assert ((root / "data/train/images/1601.png").resolve() in opened) == watched
        assert root / "data/train/questions.json" in opened


@pytest.mark.parametrize("kind", ["box", "region"])
def test_an_image_without_a_box_is_a_flaw_and_the_others_are_read(tmp_path, kind):
    good = Image.new("RGB", (2, 2))
    good.putpixel((0, 0), (9, 9, 9))
    root = write(tmp_path, *about(1600), *about(1601), *about(1602), images={1601: good, 1602: good})
    broken = root / "data/train/images/1602.png"
    broken.write_bytes(broken.read_bytes()[:40])
    one_colour, sample, cut_short = easy_vqa.read("t", "train", root, kind=kind)
    assert isinstance(sample, Sample)
    assert one_colour == Flaw(
        "train-1600-0", str(broken.with_name("1600.png")), "image shows no shape: all its pixels are of one colour"
    )
    assert (cut_short.id, cut_short.path) == ("train-1602-2", str(broken))
    assert cut_short.reason.startswith("image cannot be read (")


@pytest.mark.parametrize("kind", easy_vqa.KINDS)
def test_a_missing_image_is_a_flaw(tmp_path, kind):
    root = write(tmp_path, *about(1601))
    flaws = list(easy_vqa.read("t", "train", root, kind=kind))
    assert {(flaw.path, flaw.reason) for flaw in flaws} == {
        (str(root / "data/train/images/1601.png"), "image does not exist")
    }
    assert [flaw.id for flaw in flaws] == [f"train-1601-{number}" for number in range(len(flaws))]
    assert len(flaws) == (2 if kind == "vqa" else 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["q", "a"], "found ['q', 'a']; expected [question, answer, image id]"),
        (["q", "a", "1600"], "found ['q', 'a', '1600']; expected [question, answer, image id]"),
        (None, "found None; expected [question, answer, image id]"),
        (["q", 3, 1600], "answer is 3; expected a text"),
        ([" ", "a", 1600], "question is empty; expected a text"),
    ],
)
def test_a_row_that_is_no_question_is_a_flaw(tmp_path, row, reason):
    root = write(tmp_path, ["first", "yes", 1600], row, ["third", "no", 1600])
    flaw, first, third = easy_vqa.read("t", "train", root)
    assert flaw == Flaw("item 2", str(root / "data/train/questions.json"), reason)
    assert (first.id, third.id) == ("train-1600-0", "train-1600-1")


def test_unknown_names_are_answered_with_the_known():
    assert refused("dev") == "task vqa: easy_vqa has no split 'dev'; allowed: align, train, validation, test"
    assert refused("test", kind="boxes") == (
        "task vqa: easy_vqa has no kind 'boxes'; allowed: vqa, caption, box, region"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "is cut short or no JSON"), ('[["q", "a", 1]', "is cut short or no JSON"), ("3", "holds no list")],
)
def test_files_that_are_not_easy_vqas(tmp_path, content, reason):
    root = write(tmp_path)
    source = root / "data/train/questions.json"
    source.write_text(content)
    assert refused("train", root).startswith(f"task vqa: {source} {reason}")


def test_a_missing_file(tmp_path):
    assert refused("train", tmp_path) == (
        f"task vqa: {tmp_path}/data/train/questions.json cannot be read (No such file or directory)"
    )


def test_a_folder_of_ones_own(tmp_path):
    root = write(tmp_path, ["what shape?", "circle", 1600], ["other split", "no", 0])
    [sample] = read("train", root)
    assert sample.images == (root / "data" / "train" / "images" / "1600.png",)
    assert sample.references == ("circle",)
    assert read("train", root, kind="caption") == []  # its colour is not known


def test_without_yes_no_questions_only_shapes_and_colours_are_asked_for(splits):
    everything, open_questions = splits["align"], read("align", yes_no=False)
    assert {s.references[0] for s in everything} > {"yes", "no"}
    assert not {s.references[0] for s in open_questions} & {"yes", "no"}
    answered_otherwise = [s for s in everything if s.references[0] not in ("yes", "no")]
    assert [s.turns for s in open_questions] == [s.turns for s in answered_otherwise]


def test_the_reader_declares_what_it_takes():
    assert easy_vqa.READER.splits == ("align", "train", "validation", "test")
    assert not easy_vqa.READER.needs_path
