"""How readers open files: streamed, noted, and for what is broken one line that names the file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.readers import files
from equipoise.data.readers.reader import Unusable
from equipoise.errors import DataError

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "data.json"


def items(source: Path, content: bytes, prefix: str = "item") -> list[Any]:
    source.write_bytes(content)
    return list(files.json_items("own", source, prefix))


def mistake(read: Callable[[], Any], source: Path) -> str:
    """What follows the task and the file in the error's one line."""
    with pytest.raises(DataError) as caught:
        read()
    start = f"task own: {source} "
    assert str(caught.value).startswith(start)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).removeprefix(start)


# ---------------------------------------------------------------------- JSON


def test_the_items_of_a_file_that_is_a_list(source):
    content = [{"a": 1, "b": [1.5, None, True]}, "text", []]
    assert items(source, json.dumps(content, indent=2).encode()) == content


def test_numbers_are_pythons_own(source):
    assert [type(item) for item in items(source, b"[1, 1.5, 2e3]")] == [int, float, float]


def test_the_items_of_a_list_below_a_key(source):
    content = {"info": {"items": [1]}, "annotations": [{"id": 7}, {"id": 8}]}
    assert items(source, json.dumps(content).encode(), "annotations.item") == content["annotations"]


def test_the_pairs_of_an_object(source):
    content = {"1": {"a": 1}, "2": {"a": [2]}}
    source.write_text(json.dumps({"imgs": content}))
    assert list(files.json_pairs("own", source, "imgs")) == list(content.items())
    assert list(files.json_pairs("own", source)) == [("imgs", content)]


@pytest.mark.parametrize(
    "read", [lambda path: list(files.json_items("own", path)), lambda p: files.json_whole("own", p)]
)
def test_a_byte_order_mark_is_no_mistake(source, read):
    source.write_bytes(BOM + b'["a", "b"]')
    assert read(source) == ["a", "b"]


def test_items_come_before_the_rest_of_the_file_is_looked_at(source):
    source.write_bytes(b"[1, 2" + b", 3" * 100_000 + b", !")
    stream = files.json_items("own", source)
    assert list(itertools.islice(stream, 3)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "count", "reason"),
    [
        (b"", 0, "parse error: premature EOF"),
        (b"[", 0, "parse error: premature EOF"),
        (b'[{"a": 1}, {"a": 2}, {"a"', 2, "parse error: premature EOF"),
        (b'["a", "b", "c"', 3, "parse error: premature EOF"),
        (b'["a"] ["b"]', 1, "parse error: trailing garbage"),
        (b'["a", NaN]', 1, "lexical error: invalid char in json text."),
        (b'["a", "\xff"]', 1, "lexical error: invalid bytes in UTF8 string."),
    ],
)
def test_a_list_that_breaks_off_says_after_how_many_items(source, content, count, reason):
    source.write_bytes(content)
    found = []

    def read() -> None:
        for item in files.json_items("own", source):
            found.append(item)

    assert mistake(read, source) == f"is cut short or no JSON after {count} items ({reason})"
    assert len(found) == count


def test_an_error_repeats_nothing_of_the_file(source):
    source.write_bytes(b'["a", \x1b[31m secret]')
    line = mistake(lambda: list(files.json_items("own", source)), source)
    assert "secret" not in line
    assert line.isprintable()


def test_pairs_that_break_off(source):
    source.write_bytes(b'{"a": 1, "b": 2, "c"')
    line = mistake(lambda: list(files.json_pairs("own", source)), source)
    assert line == "is cut short or no JSON after 2 items (parse error: premature EOF)"


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[" * 100_000, b'"\xff"'])
def test_a_small_file_that_is_no_json(source, content):
    source.write_bytes(content)
    assert mistake(lambda: files.json_whole("own", source), source).startswith("is cut short or no JSON (")


@pytest.mark.parametrize(
    "read",
    [
        lambda path: list(files.json_items("own", path)),
        lambda path: list(files.json_pairs("own", path)),
        lambda path: files.json_whole("own", path),
        lambda path: list(files.text_lines("own", path)),
        lambda path: list(files.csv_rows("own", path, ())),
    ],
)
def test_files_that_cannot_be_opened(tmp_path, read):
    none, folder = tmp_path / "none", tmp_path / "folder"
    folder.mkdir()
    assert mistake(lambda: read(none), none) == "cannot be read (No such file or directory)"
    assert mistake(lambda: read(folder), folder) == "cannot be read (Is a directory)"


# ---------------------------------------------------------------------- lines and tables


def test_lines_come_with_their_numbers_and_without_their_ends(source):
    source.write_bytes(BOM + b"one\r\n\n  \ntwo \xe2\x80\xa8 half\n\xff\nlast")
    assert list(files.text_lines("own", source)) == [
        ("line 1", b"one"), ("line 4", "two \u2028 half".encode()), ("line 5", b"\xff"), ("line 6", b"last"),
    ]  # fmt: skip


def test_rows_of_a_table(source):
    source.write_bytes(BOM + 'id;text\n1;"a; b\nand ""c"""\n2;ü\n3\n'.encode())
    assert list(files.csv_rows("own", source, ("text", "id"), delimiter=";")) == [
        ("row 1", {"id": "1", "text": 'a; b\nand "c"'}),
        ("row 2", {"id": "2", "text": "ü"}),
        ("row 3", {"id": "3", "text": None}),
    ]


@pytest.mark.parametrize(("content", "found"), [(b"a,b\n1,2\n", "a, b"), (b"", "nothing")])
def test_a_table_without_a_column(source, content, found):
    source.write_bytes(content)
    line = mistake(lambda: list(files.csv_rows("own", source, ("a", "c") if found == "a, b" else ("c",))), source)
    assert line == f"has no column 'c'; found {found}"


@pytest.mark.parametrize("content", [b"a\nx\n\xff\n", b"a\n" + b"x" * 200_000])
def test_a_table_that_is_none_is_refused_after_its_good_rows(source, content):
    source.write_bytes(content)
    line = mistake(lambda: list(files.csv_rows("own", source, ("a",))), source)
    assert line.startswith("is not a CSV file in UTF-8 (")


# ---------------------------------------------------------------------- what is noted


@pytest.mark.parametrize(
    "read",
    [
        lambda path: next(files.json_items("own", path)),
        lambda path: next(files.json_pairs("own", path, "item")),
        lambda path: files.json_whole("own", path),
        lambda path: next(files.text_lines("own", path)),
        lambda path: next(files.csv_rows("own", path, ())),
        lambda path: files.note(path),
    ],
)
def test_what_is_opened_is_noted(source, read):
    source.write_text('[{"a": 1},\n{"b": 2}]')
    with files.watching() as opened:
        assert opened == set()
        read(source)
        assert opened == {source}
    files.note(source.parent)
    assert opened == {source}


def test_a_file_that_cannot_be_opened_is_noted_too(source):
    with files.watching() as opened, pytest.raises(DataError):
        files.json_whole("own", source)
    assert opened == {source}


def test_a_file_is_noted_before_it_is_read(source):
    source.write_text("[1]")
    with files.noting(lambda path: path.write_text("[2]")):
        assert files.json_whole("own", source) == [2]


def test_noting_inside_noting(source):
    with files.watching() as outer:
        with files.watching() as inner:
            files.note(source)
        files.note(source.parent)
    assert (outer, inner) == ({source.parent}, {source})


def test_a_note_is_its_path_watched_or_not(source):
    assert files.note(source) == source
    with files.watching():
        assert files.note(source) == source


# ---------------------------------------------------------------------- below a folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "a.png", folder / "sub/b.png", tmp_path / "outside.png", tmp_path / "data-2.png"):
        path.touch()
    (folder / "inner.png").symlink_to("sub/b.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dangling.png").symlink_to("none.png")
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.png", "a.png"), ("sub/b.png", "sub/b.png"), ("./sub/../a.png", "a.png"), ("sub/../../data/a.png", "a.png"),
        ("inner.png", "sub/b.png"),
    ],
)  # fmt: skip
def test_files_below_the_folder_are_found_by_their_real_path(folder, name, file):
    assert files.inside(folder, name, "image") == folder.resolve() / file


def test_an_absolute_path_below_the_folder_is_below_it(folder):
    assert files.inside(folder, str(folder / "a.png"), "image") == folder.resolve() / "a.png"


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert files.inside(tmp_path / "link", "a.png", "image") == folder.resolve() / "a.png"


@pytest.mark.parametrize(
    "name",
    [
        "../outside.png", "sub/../../outside.png", "/etc/passwd", "link.png", "linked/outside.png", "../data-2.png",
        "../none.png", "..",
    ],
)  # fmt: skip
def test_a_path_that_leads_outside_is_refused_whether_or_not_it_exists(folder, name):
    with pytest.raises(Unusable, match=r"^image lies outside the task's folder and its media_roots$") as caught:
        files.inside(folder, name, "image")
    assert caught.value.path == folder / name


@pytest.mark.parametrize("name", ["none.png", "sub", ".", "dangling.png", "loop.png", "a.png/b.png"])
def test_what_is_no_file_does_not_exist(folder, name):
    with pytest.raises(Unusable, match=r"^clip does not exist$") as caught:
        files.inside(folder, name, "clip")
    assert caught.value.path == folder / name


@pytest.mark.parametrize("name", ["x" * 300, "a\0b.png"])
def test_names_that_no_file_system_has(folder, name):
    with pytest.raises(Unusable, match=r"^image cannot be looked up \("):
        files.inside(folder, name, "image")


@pytest.mark.parametrize("name", [None, "", 3, ["a.png"], {"path": "a.png"}])
def test_a_name_must_be_a_text(folder, name):
    with pytest.raises(TypeError, match=r"^image is .*; expected a path below "):
        files.inside(folder, name, "image")


def test_an_object_where_a_list_is_wanted(tmp_path):
    source = tmp_path / "a.json"
    source.write_text('\n {"data": [{"id": 1}]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json is an object, \{\.\.\.\}; expected a list of items, \[\.\.\.\]: "):
        list(files.json_items("own", source))
    assert list(files.json_items("own", source, "data.item")) == [{"id": 1}]


LINES = ": it looks like one item a line; make it a list, or use the jsonl reader"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{"id": 1, "answers": []}\n\n{"id": 2}\n', LINES),
        ('{"id": 1, "conversations": [{"from": "human"}]}\n', LINES),
        ('{"conversations": ["' + "a" * 100_000 + '"]}\n{"id": 2}\n', LINES),
        ('{"info": {"licences": [1]},\n "data": [{"id": 1}]}', ": there is one under 'data'; make the file that list"),
        ('{"data": [{"id": "' + "a" * 100_000, ": there is one under 'data'; make the file that list"),
        ('{"a": {"b": [1]}}', ""),
        ('{"a": "' + "a" * 100_000, ""),
        ("{", ""),
        ('{"a": "\udcff', ""),
    ],
    ids=range(9),
)
def test_where_the_list_is_that_was_meant(tmp_path, text, hint):
    source = tmp_path / "a.json"
    source.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as error:
        list(files.json_items("own", source))
    assert str(error.value) == f"task own: {source} is an object, {{...}}; expected a list of items, [...]{hint}"
