"""ShareGPT4V: long descriptions of images that lie in several collections' folders."""

from __future__ import annotations

from _published import FIXTURES, copied, edited, flaws, mistake, samples
from PIL import Image

from equipoise.data.readers.sharegpt4v import FILE, READER
from equipoise.data.sample import Sample, exchange

ROOT = FIXTURES / "sharegpt4v"


def sample(id: str, image: str, question: str, answer: str) -> Sample:
    return Sample(id, "own", exchange(question, answer), images=(ROOT / image,), references=(answer,))


EXPECTED = [
    sample(
        "000000000101",
        "coco/train2017/000000000101.jpg",
        "What do you see in this picture?",
        "A red square stands in the middle of a white field. Nothing else is there.",
    ),
    sample(
        "004540001",
        "llava/llava_pretrain/images/00454/004540001.jpg",
        "Can you tell me about this image?",
        "A blue block touches the left edge of the picture.",
    ),
    sample(
        "sa_77",
        "sam/images/sa_77.jpg",
        "Describe what is shown here.",
        "A green bar runs along the bottom, below an empty sky.",
    ),
    sample(
        "w_5",
        "wikiart/images/w_5.jpg",
        "What does the painting show?",
        "A black shape, painted flatly, leans to the right.",
    ),
]


def test_all_of_it():
    assert samples(READER.read, "train", ROOT) == EXPECTED
    assert READER.splits == ("train",)


def test_the_images_can_be_seen():
    for row in EXPECTED:
        with Image.open(row.images[0]) as image:
            assert image.size == (20, 16)


def test_the_file_may_lie_beside_the_images(tmp_path):
    root = copied("sharegpt4v", tmp_path)
    (root / "sharegpt4v" / FILE).rename(root / FILE)
    assert [row.id for row in samples(READER.read, "train", root)] == [row.id for row in EXPECTED]


def test_an_image_that_is_not_there_and_an_answer_that_is_none(tmp_path):
    root = copied("sharegpt4v", tmp_path)
    source = root / "sharegpt4v" / FILE
    (root / "sam/images/sa_77.jpg").unlink()
    edited(source, "A blue block touches the left edge of the picture.", "")
    assert [(flaw.id, flaw.path, flaw.reason) for flaw in flaws(READER.read, "train", root)] == [
        ("004540001", str(source), "value is empty; expected a text"),
        ("sa_77", str(root / "sam/images/sa_77.jpg"), "image does not exist"),
    ]


def test_a_split_that_it_does_not_have_and_files_that_are_not_its(tmp_path):
    assert mistake(READER.read, "test", ROOT) == "task own: sharegpt4v has no split 'test'; allowed: train"
    assert f"sharegpt4v/{FILE} cannot be read" in mistake(READER.read, "train", tmp_path)
    (tmp_path / FILE).write_text('[{"id": "a", "conv', encoding="utf-8")
    assert f"{FILE} is cut short or no JSON after 0 items" in mistake(READER.read, "train", tmp_path)
