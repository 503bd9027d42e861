"""Parquet: rows with paths and rows with the images' own bytes, in one file or several."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from _published import FIXTURES, flaws, mistake, samples
from PIL import Image

from equipoise.data.readers import table
from equipoise.data.readers.files import note
from equipoise.data.readers.parquet import READER
from equipoise.data.sample import Sample, Turn, exchange

ROOT = FIXTURES / "parquet"
GOOD = {"prompt": "q", "answer": "a"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path, *rows: dict[str, Any], name: str = "train.parquet") -> Path:
    pa.parquet.write_table(pa.Table.from_pylist(list(rows)), folder / name)
    return folder


def test_each_split_of_embedded_images():
    rows = {split: samples(READER.read, split, ROOT) for split in ("train", "validation", "test")}
    assert {
        split: [(row.id, row.prompt, row.turns[1].text, row.references) for row in rows[split]] for split in rows
    } == {
        "train": [
            ("t-1", "What colour is it?", "red", ("red", "Red")),
            ("t-2", "What colour is it?", "blue", ("blue", "Blue")),
            ("t-3", "What colour is the first?", "red", ("red", "Red")),
        ],
        "validation": [
            ("v-1", "What colour is it?", "green", ("green", "Green")),
            ("v-2", "Is it green?", "yes", ("yes", "Yes")),
        ],
        "test": [
            ("e-1", "What colour is it?", "black", ("black", "Black")),
            ("e-2", "Is it red?", "no", ("no", "No")),
        ],
    }
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 128, 0), "black": (0, 0, 0)}
    for row in (row for part in rows.values() for row in part if row.turns[1].text in colours):
        with Image.open(row.images[0]) as image:
            assert image.getpixel((0, 0)) == colours[row.turns[1].text]


def test_bytes_become_a_file_once_named_by_their_digest(folder, cache):
    write(folder, *({**GOOD, "image": {"bytes": content, "path": path}} for content, path in [
        (b"one", "x/A.PNG"), (b"two", None), (b"one", "y.png"), (b"one", "no ending"),
    ]))  # fmt: skip
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two"))
    names = [f"{one}.png", two, f"{one}.png", one]
    rows = samples(READER.read, "train", folder)
    assert [row.images for row in rows] == [(cache / "media" / name[:2] / name,) for name in names]
    assert sorted(file.name for file in (cache / "media").rglob("*") if file.is_file()) == sorted(set(names))
    assert [row.images[0].read_bytes() for row in rows] == [b"one", b"two", b"one", b"one"]
    before = rows[0].images[0].stat().st_mtime_ns
    assert samples(READER.read, "train", folder) == rows
    assert rows[0].images[0].stat().st_mtime_ns == before


def test_several_images_and_a_clip(folder, cache):
    images = [{"bytes": b"one", "path": "1.png"}, {"bytes": None, "path": "a.png"}]
    write(folder, {**GOOD, "images": images, "audio": {"bytes": b"tone", "path": "t.wav"}})
    [row] = samples(READER.read, "train", folder)
    assert [path.read_bytes() for path in (row.images[0], *row.audios)] == [b"one", b"tone"]
    assert row.images[1] == folder / "a.png"
    assert [path.suffix for path in (*row.images, *row.audios)] == [".png", ".png", ".wav"]


def test_rows_with_paths_and_every_other_key(folder):
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    row = {
        "id": "x",
        "messages": messages,
        "image": "b.png",
        "audios": ["a.wav"],
        "references": ["a", "b"],
        "box": [0.0, 0.25, 0.5, 1.0],
        "other": 3,
    }
    assert samples(READER.read, "train", write(folder, row)) == [
        Sample(
            "x",
            "own",
            (Turn("system", "s"), Turn("user", "u"), Turn("assistant", "a")),
            (folder / "b.png",),
            ("a", "b"),
            (folder / "a.wav",),
            (0.0, 0.25, 0.5, 1.0),
        )
    ]


def test_columns_that_are_empty_in_a_row_are_not_there(folder):
    rows = [{"id": "x", **GOOD, "image": "a.png", "references": ["r"], "box": [0.0, 0.0, 1.0, 1.0]}, GOOD]
    assert samples(READER.read, "train", write(folder, *rows))[1] == Sample(
        "2", "own", exchange("q", "a"), references=("a",)
    )


def test_rows_are_numbered_over_the_files_in_their_order(folder, monkeypatch):
    monkeypatch.setattr("equipoise.data.readers.parquet.ROWS", 2)
    for shard, count in (("00001", 3), ("00000", 3), ("00002", 1)):
        rows = [{"prompt": f"{shard}-{number}", "answer": "a"} for number in range(count)]
        write(folder, *rows, name=f"train-{shard}-of-00003.parquet")
    rows = samples(READER.read, "train", folder)
    assert [(row.id, row.prompt) for row in rows] == [
        ("1", "00000-0"), ("2", "00000-1"), ("3", "00000-2"),
        ("4", "00001-0"), ("5", "00001-1"), ("6", "00001-2"),
        ("7", "00002-0"),
    ]  # fmt: skip


def test_one_file_has_the_training_split(folder):
    write(folder, {**GOOD, "image": "a.png"}, name="mine.parquet")
    assert samples(READER.read, "train", folder / "mine.parquet")[0].images == (folder / "a.png",)
    assert mistake(READER.read, "test", folder / "mine.parquet") == (
        "task own: parquet has no split 'test'; allowed: train"
    )


@pytest.mark.parametrize(
    ("row", "path", "reason"),
    [
        ({**GOOD, "image": "none.png"}, "none.png", "image does not exist"),
        (
            {**GOOD, "image": "../outside.png"},
            "../outside.png",
            "image lies outside the task's folder and its media_roots",
        ),
        ({**GOOD, "image": {"bytes": None, "path": "none.png"}}, "none.png", "image does not exist"),
        ({**GOOD, "image": {"bytes": None, "path": "../outside.png"}}, "../outside.png", "image lies outside"),
        ({**GOOD, "image": {"bytes": None, "path": None}}, "train.parquet", "image is None; expected a path below"),
        ({**GOOD, "image": {"bytes": b"", "path": "a.png"}}, "train.parquet", "image has bytes b''; expected those of"),
        ({**GOOD, "image": {"bytes": "text", "path": "a.png"}}, "train.parquet", "image has bytes 'text'; expected"),
        ({**GOOD, "audio": b"tone"}, "train.parquet", "audio is b'tone'; expected a path below"),
        ({"prompt": "q"}, "train.parquet", "'answer' is missing"),
        ({"prompt": "q", "answer": None}, "train.parquet", "answer is None; expected a text"),
        ({"prompt": 1, "answer": "a"}, "train.parquet", "prompt is 1; expected a text"),
        ({**GOOD, "references": []}, "train.parquet", "references is []; expected a list of at least one item"),
        ({**GOOD, "box": [0.1, 0.2]}, "train.parquet", "box is [0.1, 0.2]; expected left, top, right, bottom"),
    ],
)
def test_a_row_that_cannot_be_used(folder, row, path, reason):
    [flaw] = flaws(READER.read, "train", write(folder, row))
    assert (flaw.id, flaw.path) == ("1", str(folder / path))
    assert reason in flaw.reason


def test_files_that_are_missing_or_broken(folder):
    assert mistake(READER.read, "train", folder) == (
        f"task own: {folder} holds neither train.parquet nor train-*.parquet"
    )
    write(folder, *({**GOOD, "id": str(number)} for number in range(200)))
    content = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(content[:-50])
    assert "train.parquet is cut short or no Parquet after 0 rows (" in mistake(READER.read, "train", folder)
    (folder / "train.parquet").write_bytes(b"")
    assert "train.parquet is cut short or no Parquet after 0 rows (" in mistake(READER.read, "train", folder)


def test_a_file_that_breaks_in_the_middle(folder, monkeypatch):
    monkeypatch.setattr("equipoise.data.readers.parquet.ROWS", 2)
    rows = pa.Table.from_pylist([{"prompt": f"question {number}", "answer": "a"} for number in range(4)])
    pa.parquet.write_table(rows, folder / "train.parquet", row_group_size=2, use_dictionary=False, compression="gzip")
    metadata = pa.parquet.read_metadata(folder / "train.parquet")
    start = metadata.row_group(1).column(0).data_page_offset
    content = bytearray((folder / "train.parquet").read_bytes())
    content[start : start + 40] = bytes(40)
    (folder / "train.parquet").write_bytes(content)
    assert "train.parquet is cut short or no Parquet after 2 rows (" in mistake(READER.read, "train", folder)


def test_a_cache_folder_that_cannot_be_written(folder, cache):
    write(folder, {**GOOD, "image": {"bytes": b"one", "path": "a.png"}})
    cache.write_text("a file", encoding="utf-8")
    assert "cannot be written (Not a directory); set EQUIPOISE_CACHE" in mistake(READER.read, "train", folder)


def test_the_files_that_samples_depend_on_are_noted(folder, cache, monkeypatch):
    noted: list[Path] = []

    def noting(path: Path) -> Path:
        noted.append(path)
        return note(path)

    for module in ("files", "parquet", "table"):
        monkeypatch.setattr(f"equipoise.data.readers.{module}.note", noting)
    embedded = [{**GOOD, "image": {"bytes": content, "path": "a.png"}} for content in (b"one", b"two")]
    rows = samples(READER.read, "train", write(folder, *embedded))
    assert noted == [folder, folder / "train.parquet", rows[0].images[0]]


def test_the_keys_are_those_of_json_lines():
    from equipoise.data.readers import jsonl

    assert all(f"`{key}`" in (jsonl.__doc__ or "") for key in table.KEYS)
