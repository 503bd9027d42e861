"""Written names: which are taken, that a picture shows what is asked for, and no name in two splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equipoise.data.readers import rendered_text
from equipoise.data.readers.files import watching
from equipoise.data.sample import Sample
from equipoise.errors import DataError

SPLITS = ("train", "validation", "test")


def write(root: Path, *cities: str) -> Path:
    """The one table of vega-datasets that is read."""
    (root / "_data").mkdir()
    rows = [f'{number},"{city}",USA' for number, city in enumerate(cities)]
    (root / "_data" / "airports.csv").write_text("\n".join(["iata,city,country", *rows]) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything(root: Path | None, kind: str) -> dict[str, list[Sample]]:
    """The samples of each split."""
    splits = {split: list(rendered_text.read("ocr", split, root, kind=kind)) for split in SPLITS}
    samples = [sample for rows in splits.values() for sample in rows]
    assert all(isinstance(sample, Sample) for sample in samples)
    assert len({sample.id for sample in samples}) == len({sample.images for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.references == (sample.turns[-1].text,)
    return splits


def refused(split: str, root: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        list(rendered_text.read("ocr", split, root, **options))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def letters() -> list[str]:
    """A hundred names of five letters."""
    return [f"Wor{one}{other}" for one in "abcdefghij" for other in "klmnopqrst"]


def ink(image: Path) -> np.ndarray:
    """[H, W], where something is written: what differs from the corner."""
    with Image.open(image) as opened:
        assert (opened.size, opened.mode) == ((256, 256), "RGB")
        pixels = np.asarray(opened, dtype=int)
    return np.abs(pixels - pixels[0, 0]).sum(axis=2) > 60


@pytest.mark.usefixtures("cache")
def test_names_of_three_to_ten_letters_and_spaces_are_taken_once(tmp_path):
    taken, others = (
        ["Ely", "Salt Lakes", "  Key   West "],
        ["NA", "Bay Springs", "St. Paul", "ELY", "Route 66", "A-B", ""],
    )
    root = write(tmp_path, *taken, *others)
    found = [s for rows in everything(root, "read").values() for s in rows]
    assert {sample.id: sample.references for sample in found} == {
        "ely": ("Ely",), "salt-lakes": ("Salt Lakes",), "key-west": ("Key West",),
    }  # fmt: skip
    assert {(sample.prompt, sample.task, sample.box) for sample in found} == {("What is written?", "ocr", None)}


@pytest.mark.usefixtures("cache")
def test_lists_hold_one_name_two_and_so_on_to_seven_and_one_again(tmp_path):
    splits = everything(write(tmp_path, *letters()), "count")
    for split, samples in splits.items():
        assert [sample.id for sample in samples] == [f"{split}-{number}" for number in range(len(samples))]
        assert [int(sample.references[0]) for sample in samples] == [1 + n % 7 for n in range(len(samples))]
        assert {sample.prompt for sample in samples} <= {"How many names are written?"}
    assert len(splits["train"]) > 14
    assert min(map(len, splits.values())) > 0


@pytest.mark.usefixtures("cache")
def test_a_list_shows_as_many_lines_as_it_has_names(tmp_path):
    # Without letters that reach below the line or dots above it, each name is one block of rows.
    names = [name.replace("j", "a").replace("i", "o").replace("p", "v").replace("q", "x") for name in letters()]
    for sample in everything(write(tmp_path, *names), "count")["train"]:
        rows = ink(sample.images[0]).any(axis=1)
        assert np.diff(rows.astype(int), prepend=0).clip(0).sum() == int(sample.references[0])


@pytest.mark.usefixtures("cache")
def test_a_name_is_in_one_split_whatever_the_kind(tmp_path):
    root = write(tmp_path, *letters())
    names = {split: {s.references[0] for s in rows} for split, rows in everything(root, "read").items()}
    counts = {split: sum(int(s.references[0]) for s in rows) for split, rows in everything(root, "count").items()}
    assert sum(map(len, names.values())) == 100
    assert len(set.union(*names.values())) == 100
    for split in SPLITS:
        assert len(names[split]) - 7 < counts[split] <= len(names[split])


@pytest.mark.usefixtures("cache")
def test_other_names_look_otherwise_and_a_name_looks_the_same_wherever_it_stands(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    alone = everything(write(one, "Worak"), "read")
    among = everything(write(other, *reversed(letters())), "read")
    [(split, [sample])] = [(split, rows) for split, rows in alone.items() if rows]
    [same] = [s for s in among[split] if s.references == ("Worak",)]
    assert same.images != sample.images
    assert same.images[0].read_bytes() == sample.images[0].read_bytes()
    pictures = Counter(s.images[0].read_bytes() for rows in among.values() for s in rows)
    assert len(pictures) == 100
    heights = [np.flatnonzero(ink(s.images[0]).any(axis=1)) for s in among["train"]]
    assert min(rows[0] for rows in heights) < 60 < 190 < max(rows[-1] for rows in heights)


def test_pictures_are_drawn_once_and_watched(tmp_path, cache):
    root = write(tmp_path, *letters())
    with watching() as opened:
        [sample, *_] = rendered_text.read("ocr", "train", root)
    when = sample.images[0].stat().st_mtime_ns
    assert sample.images[0].parent.parent == cache / "drawn"
    assert opened == {root / "_data" / "airports.csv", sample.images[0].parent}
    [again, *_] = rendered_text.read("ocr", "train", root)
    assert again == sample
    assert again.images[0].stat().st_mtime_ns == when


@pytest.mark.usefixtures("cache")
def test_mistakes(tmp_path):
    root = write(tmp_path, *letters())
    assert refused("dev", root) == "task ocr: rendered_text has no split 'dev'; allowed: train, validation, test"
    assert refused("test", root, kind="dots") == "task ocr: rendered_text has no kind 'dots'; allowed: read, count"
    source = root / "_data" / "airports.csv"
    source.write_text("iata,town\nA,B\n")
    assert refused("test", root) == f"task ocr: {source} has no column 'city'; found iata, town"
    source.unlink()
    assert refused("test", root) == f"task ocr: {source} cannot be read (No such file or directory)"
    assert rendered_text.READER.splits == SPLITS
    assert not rendered_text.READER.needs_path


@pytest.mark.parametrize(("kind", "sizes"), [("read", (1642, 205, 219)), ("count", (411, 52, 55))])
def test_the_packaged_names(kind, sizes):
    splits = everything(None, kind)
    assert tuple(map(len, splits.values())) == sizes
    if kind == "read":
        names = {split: {s.references[0].casefold() for s in rows} for split, rows in splits.items()}
        assert not names["train"] & (names["validation"] | names["test"])
        assert not names["validation"] & names["test"]
    for sample in splits["test"]:
        written = ink(sample.images[0])
        assert written.sum() > 100
        # Nothing runs off, but for the tails of letters in the lowest line of a list.
        assert not written[:2].any()
        assert not written[:, :4].any()
        assert not written[:, -4:].any()
        height = np.flatnonzero(written.any(axis=1))
        assert kind == "count" or (height[-1] < 250 and height[-1] - height[0] >= 15), "legible at 128 pixels"
