"""RefCOCO, RefCOCO+, RefCOCOg: phrases and boxes, joined from the owners' pickles and COCO's JSON; hostile pickles."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from _published import FIXTURES, copied, flaws, mistake, samples
from PIL import Image

from equipoise.data.readers.refcoco import READER
from equipoise.data.sample import Sample, exchange

ROOT = FIXTURES / "refcoco"
IMAGES = "images/mscoco/images/train2014"
LAMP, TABLE, VASE, WOMAN, BUS, FAR_BUS = (
    (0.1, 0.25, 0.35, 0.75),
    (0.5, 0.0, 1.0, 1.0),  # stands out of its image by 0.01 pixels
    (0.2, 0.25, 0.6, 0.75),
    (0.3335, 0.125, 0.6665, 0.375),
    (0.0, 0.5, 0.6, 1.0),
    (0.7, 0.0625, 0.9, 0.25),
)
TEXTS = {
    LAMP: ("[0.1, 0.25, 0.35, 0.75]", "[0.100000, 0.250000, 0.350000, 0.750000]"),
    TABLE: ("[0.5, 0.0, 1.0, 1.0]", "[0.500000, 0.000000, 1.000000, 1.000000]"),
    VASE: ("[0.2, 0.25, 0.6, 0.75]", "[0.200000, 0.250000, 0.600000, 0.750000]"),
    WOMAN: ("[0.33, 0.12, 0.67, 0.38]", "[0.333500, 0.125000, 0.666500, 0.375000]"),
    BUS: ("[0.0, 0.5, 0.6, 1.0]", "[0.000000, 0.500000, 0.600000, 1.000000]"),
    FAR_BUS: ("[0.7, 0.06, 0.9, 0.25]", "[0.700000, 0.062500, 0.900000, 0.250000]"),
}


def image(number: int, root: Path = ROOT) -> Path:
    return root / IMAGES / f"COCO_train2014_{number:012d}.jpg"


def find(id: str, number: int, box: tuple, phrase: str) -> Sample:
    question = f"Provide the bounding box coordinate of the region this sentence describes: {phrase}."
    return Sample(id, "own", exchange(question, TEXTS[box][0]), (image(number),), (TEXTS[box][1],), box=box)


def describe(id: str, number: int, box: tuple, learnt: str, *phrases: str) -> Sample:
    question = f"Provide a short description for this region: {TEXTS[box][0]}."
    return Sample(id, "own", exchange(question, learnt), (image(number),), phrases or (learnt,), box=box)


FOUND = {
    ("refcoco", "train"): [
        find("0-0", 1001, LAMP, "the lamp on the left"),
        find("0-1", 1001, LAMP, "left lamp"),
        find("1-2", 1001, TABLE, "cafe table"),
    ],
    ("refcoco", "validation"): [find("2-3", 1002, VASE, "tall vase"), find("2-4", 1002, VASE, "vase with a rose")],
    ("refcoco", "test"): [find("3-5", 1003, WOMAN, "woman waving"), find("3-6", 1003, WOMAN, "girl")],
    ("refcoco", "testB"): [find("4-7", 1004, BUS, "bus in front"), find("5-8", 1004, FAR_BUS, "far bus")],
    ("refcoco+", "train"): [find("0-0", 1001, LAMP, "pointing upward"), find("0-1", 1001, LAMP, "bright one")],
    ("refcoco+", "validation"): [find("1-2", 1002, VASE, "full of water")],
    ("refcoco+", "test"): [find("2-3", 1003, WOMAN, "waving")],
    ("refcoco+", "testB"): [find("3-4", 1004, FAR_BUS, "small and yellow")],
    ("refcocog", "train"): [
        find("0-0", 1001, LAMP, "a lamp that stands beside a table"),
        find("0-1", 1001, LAMP, "the lamp near the wall"),
    ],
    ("refcocog", "validation"): [
        find("1-2", 1002, VASE, "a vase filled with water"),
        find("1-3", 1002, VASE, "the glass vase"),
    ],
    ("refcocog", "test"): [
        find("2-4", 1003, WOMAN, "the woman's raised hand"),
        find("2-5", 1003, WOMAN, "a woman who waves"),
    ],
}
DESCRIBED = {
    ("refcoco", "train"): [
        describe("0-0", 1001, LAMP, "the lamp on the left", "the lamp on the left", "left lamp"),
        describe("0-1", 1001, LAMP, "left lamp", "the lamp on the left", "left lamp"),
        describe("1-2", 1001, TABLE, "cafe table"),
    ],
    ("refcoco", "validation"): [describe("2", 1002, VASE, "tall vase", "tall vase", "vase with a rose")],
    ("refcoco", "test"): [describe("3", 1003, WOMAN, "woman waving", "woman waving", "girl")],
    ("refcoco", "testB"): [describe("4", 1004, BUS, "bus in front"), describe("5", 1004, FAR_BUS, "far bus")],
    ("refcocog", "test"): [
        describe("2", 1003, WOMAN, "the woman's raised hand", "the woman's raised hand", "a woman who waves")
    ],
}


@pytest.mark.parametrize(("dataset", "split"), FOUND)
def test_each_split_of_regions_to_find(dataset, split):
    assert samples(READER.read, split, ROOT, dataset=dataset, kind="bbox") == FOUND[dataset, split]
    assert split in READER.splits


@pytest.mark.parametrize(("dataset", "split"), DESCRIBED)
def test_each_split_of_regions_to_describe(dataset, split):
    assert samples(READER.read, split, ROOT, dataset=dataset, kind="caption") == DESCRIBED[dataset, split]


def test_regions_of_refcoco_are_found_unless_a_recipe_says_otherwise():
    assert samples(READER.read, "train", ROOT) == FOUND["refcoco", "train"]


def test_the_images_are_as_large_as_instances_json_says():
    for dataset in ("refcoco", "refcoco+", "refcocog"):
        for entry in json.loads((ROOT / dataset / "instances.json").read_text(encoding="utf-8"))["images"]:
            with Image.open(ROOT / IMAGES / entry["file_name"]) as picture:
                assert picture.size == (entry["width"], entry["height"])


@pytest.mark.parametrize(
    ("split", "shown", "exact"),
    [
        # 20 x 16 in a square of 20: two rows above. [2, 4, 7, 12] becomes [2, 6, 7, 14].
        ("train", "[0.1, 0.3, 0.35, 0.7]", "[0.100000, 0.300000, 0.350000, 0.700000]"),
        # 15 x 20: of five columns two stand on the left. [3, 5, 9, 15] becomes [5, 5, 11, 15].
        ("validation", "[0.25, 0.25, 0.55, 0.75]", "[0.250000, 0.250000, 0.550000, 0.750000]"),
    ],
)
def test_boxes_in_the_square_that_an_image_is_padded_to(split, shown, exact):
    plain = samples(READER.read, split, ROOT)[0]
    row = samples(READER.read, split, ROOT, square=True)[0]
    assert (row.prompt, row.turns[-1].text, row.references) == (plain.prompt, shown, (exact,))
    assert row.box == plain.box
    described = samples(READER.read, split, ROOT, kind="caption", square=True)[0]
    assert described.prompt == f"Provide a short description for this region: {shown}."


@pytest.mark.parametrize("place", ["images/train2014", "mscoco/images/train2014"])
def test_the_images_may_be_in_another_place(tmp_path, place):
    root = copied("refcoco", tmp_path)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / IMAGES).rename(root / place)
    assert samples(READER.read, "validation", root)[0].images == (root / place / image(1002).name,)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copied("refcoco", tmp_path)


def refs_of(root: Path) -> list[dict[str, Any]]:
    with (root / "refcoco/refs(unc).p").open("rb") as file:
        return pickle.load(file, encoding="latin1")


def write(root: Path, refs: Any, protocol: int = 2) -> None:
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_plain_data_is_read(root, protocol):
    write(root, refs_of(root), protocol)
    assert [row.id for row in samples(READER.read, "train", root)] == ["0-0", "0-1", "1-2"]


def test_what_python_2_calls_long_and_unicode_are_plain(root):
    pickled = (root / "refcoco/refs(unc).p").read_bytes()
    for old, new in ((b"U\x09tall vase", b"X\x09\x00\x00\x00tall vase"), (b"J\x2b\x23\x00\x00", b"\x8a\x02\x2b\x23")):
        assert old in pickled  # the second is ann_id 9003
        pickled = pickled.replace(old, new)
    (root / "refcoco/refs(unc).p").write_bytes(pickled)
    assert samples(READER.read, "validation", root)[0].prompt.endswith("tall vase.")


class Opens:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


HOSTILE = {
    "a call": lambda target: pickle.dumps([Opens(target)]),
    "a call by protocol 0": lambda target: pickle.dumps([Opens(target)], 0),
    "a call in a ref": lambda target: pickle.dumps([{"ref_id": Opens(target)}], 4),
    "a class": lambda target: pickle.dumps([Path("x")]),
    "a class by name": lambda target: b"(lp0\ncos\nsystem\n(S'touch %s'\ntRa." % str(target).encode(),
    "an old instance": lambda target: b"(S'touch %s'\nios\nsystem\n." % str(target).encode(),
    "a set": lambda target: pickle.dumps([{1, 2}], 2),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_of_more_than_plain_data_is_refused_and_not_run(root, tmp_path, name):
    target = tmp_path / "made"
    (root / "refcoco/refs(unc).p").write_bytes(HOSTILE[name](target))
    message = mistake(READER.read, "train", root)
    assert message.startswith(
        f"task own: {root / 'refcoco/refs(unc).p'} is no pickle of plain lists and dicts (it names "
    )
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02]", b"no pickle", b"\x80\x63.", b"(lp0\nPsomewhere\na.", b"I1\nI2\nR.", b"}}b.", b"\x82\x01."],
    ids=[
        "empty",
        "cut short",
        "text",
        "a later protocol",
        "a persistent id",
        "a call of a number",
        "a state",
        "extension",
    ],
)
def test_a_file_that_is_no_such_pickle(root, content):
    (root / "refcoco/refs(unc).p").write_bytes(content)
    assert "refs(unc).p is no pickle of plain lists and dicts (" in mistake(READER.read, "train", root)


def test_a_pickle_that_ends_in_the_middle(root):
    source = root / "refcoco/refs(unc).p"
    source.write_bytes(source.read_bytes()[:-200])
    assert "refs(unc).p is no pickle of plain lists and dicts (" in mistake(READER.read, "train", root)


def test_a_pickle_of_something_else(root):
    write(root, {"refs": []})
    assert "refs(unc).p holds a dict; expected a list of refs" in mistake(READER.read, "train", root)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sentences": []}, "sentences is []; expected a list"),
        ({"sentences": [{"sent_id": 1, "sent": ""}]}, "sent is empty; expected a text"),
        ({"sentences": [{"sent_id": 1, "raw": "x"}]}, "'sent' is missing"),
        ({"sentences": [{"sent": "x"}]}, "'sent_id' is missing"),
        ({"sentences": ["x"]}, "found 'x'; expected an object"),
        ({"ann_id": 77}, "ann_id 77 is not in instances.json"),
        ({"image_id": 77}, "image_id 77 is not in instances.json"),
        ({"ann_id": [1]}, "ann_id is [1]; expected a whole number"),
        ({"image_id": "1001"}, "image_id is '1001'; expected a whole number"),
    ],
)
def test_a_ref_that_cannot_be_used(root, change, reason):
    refs = refs_of(root)
    refs[1].update(change)
    write(root, refs)
    [flaw] = flaws(READER.read, "train", root)
    assert (flaw.id, flaw.path) == ("1", str(root / "refcoco/refs(unc).p"))
    assert reason in flaw.reason


@pytest.mark.parametrize("key", ["sentences", "ann_id", "image_id", "split"])
def test_a_ref_that_lacks_something(root, key):
    refs = refs_of(root)
    del refs[1][key]
    write(root, refs)
    [flaw] = flaws(READER.read, "train", root)
    assert (flaw.id, flaw.reason) == ("1", f"'{key}' is missing")


def test_refs_without_an_id_or_that_are_none(root):
    refs = refs_of(root)
    del refs[0]["ref_id"]
    write(root, [*refs, 3])
    rows = list(READER.read("own", "train", root))
    assert [row.id for row in rows] == ["ref 1-0", "ref 1-1", "1-2", "ref 7"]
    assert [flaw.reason for flaw in flaws(READER.read, "train", root)] == ["found 3; expected an object"]


def change_instances(root: Path, key: str, id: int, **change: Any) -> None:
    source = root / "refcoco/instances.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    [entry] = [entry for entry in content[key] if entry["id"] == id]
    entry.update(change)
    source.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([25.0, 0.0, 3.0, 3.0], "bbox is [25.0, 0.0, 3.0, 3.0], which covers nothing of an image of 20 x 16"),
        ([1.0, 1.0, 0.0, 3.0], "bbox is [1.0, 1.0, 0.0, 3.0], which covers nothing of an image of 20 x 16"),
        ([1.0, 1.0, 3.0, 0.0], "bbox is [1.0, 1.0, 3.0, 0.0], which covers nothing of an image of 20 x 16"),
        ([1.0, 1.0, 3.0, -3.0], "bbox is [1.0, 1.0, 3.0, -3.0], which covers nothing of an image of 20 x 16"),
        ([1.0, 1.0, 3.0], "bbox is [1.0, 1.0, 3.0] in an image of 20 x 16; expected x, y, width, height"),
        ([1.0, 1.0, 3.0, "3"], "bbox is [1.0, 1.0, 3.0, '3'] in an image of 20 x 16; expected x, y, width, height"),
        (None, "bbox is None; expected a list of at least one item"),
    ],
)
def test_a_box_that_is_none(root, bbox, reason):
    change_instances(root, "annotations", 9002, bbox=bbox)
    [flaw] = flaws(READER.read, "train", root)
    assert (flaw.id, flaw.reason) == ("1", reason)


def test_entries_of_instances_json_that_are_none_are_nobodys(root):
    source = root / "refcoco/instances.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    content["annotations"][:0] = [3, {"id": [9003]}, {"bbox": [0, 0, 1, 1]}]
    content["images"][:0] = ["x", {"id": "1002"}, {"id": None}]
    source.write_text(json.dumps(content), encoding="utf-8")
    assert samples(READER.read, "validation", root)[0].box == VASE


def test_a_phrase_that_ends_with_a_full_stop_gets_no_second_one(root):
    refs = refs_of(root)
    refs[2]["sentences"][0]["sent"] = "tall vase."
    write(root, refs)
    assert samples(READER.read, "validation", root)[0].prompt.endswith("describes: tall vase.")
    assert samples(READER.read, "validation", root, kind="caption")[0].turns[1].text == "tall vase."


def test_an_image_without_a_size(root):
    change_instances(root, "images", 1002, width=0)
    [flaw] = flaws(READER.read, "validation", root)
    assert flaw.reason == "bbox is [3.0, 5.0, 6.0, 10.0] in an image of 0 x 20; expected x, y, width, height"


def test_an_image_that_is_not_there_and_one_that_lies_outside(root):
    image(1002, root).unlink()
    [flaw] = flaws(READER.read, "validation", root)
    assert (flaw.id, flaw.path, flaw.reason) == ("2", str(image(1002, root)), "image does not exist")
    shutil.rmtree(root / "images")
    [flaw] = flaws(READER.read, "validation", root)
    assert (flaw.path, flaw.reason) == (str(image(1002, root)), "image does not exist")
    change_instances(root, "images", 1002, file_name="../../secret.jpg")
    [flaw] = flaws(READER.read, "validation", root)
    assert flaw.reason == "image lies outside the task's folder and its media_roots"


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("testA", {}, "refcoco has no split 'testA'; allowed: train, validation, test, testB"),
        ("testB", {"dataset": "refcocog"}, "refcocog has no split 'testB'; allowed: train, validation, test"),
        ("train", {"dataset": "refclef"}, "refcoco has no dataset 'refclef'; allowed: refcoco, refcoco+, refcocog"),
        ("train", {"kind": "mask"}, "refcoco has no kind 'mask'; allowed: caption, bbox"),
        ("train", {"square": "yes"}, "refcoco has no square 'yes'; allowed: False, True"),
    ],
)
def test_splits_and_options_that_it_does_not_have(split, options, message):
    assert mistake(READER.read, split, ROOT, **options) == f"task own: {message}"


def test_files_that_are_missing_or_cut_short(root):
    source = root / "refcoco/instances.json"
    source.write_text(source.read_text(encoding="utf-8")[:-500], encoding="utf-8")
    assert "instances.json is cut short or no JSON after " in mistake(READER.read, "train", root)
    source.unlink()
    assert "instances.json cannot be read" in mistake(READER.read, "train", root)
    (root / "refcocog/refs(umd).p").unlink()
    assert "refs(umd).p cannot be read" in mistake(READER.read, "train", root, dataset="refcocog")
