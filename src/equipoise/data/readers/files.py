"""How readers open files: streamed, whole or not at all, and watched.

Every file and folder that a reader opens through here is noted, so that an index of its samples can tell later
whether it is still true of them (`watching`).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import ijson

from equipoise.data.readers.reader import Unusable
from equipoise.errors import DataError
from equipoise.opening import open_plain
from equipoise.texts import shown

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PEEKED = 1 << 16  # bytes from which a file's form is seen
LONGEST_LINE = 64_000_000  # bytes of a line that is read
_noted: ContextVar[Callable[[Path], object] | None] = ContextVar("noted", default=None)
_allowed: ContextVar[tuple[Path, ...]] = ContextVar("allowed", default=())


@contextmanager
def watching() -> Iterator[set[Path]]:
    """Gather the files and folders opened inside."""
    opened: set[Path] = set()
    with noting(opened.add):
        yield opened


@contextmanager
def noting(noted: Callable[[Path], object]) -> Iterator[None]:
    """Call `noted` with each file and folder opened inside, before it is read."""
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)


@contextmanager
def allowing(roots: Iterable[Path]) -> Iterator[None]:
    """Inside, data may also name files below these folders (a task's `media_roots`)."""
    token = _allowed.set(tuple(roots))
    try:
        yield
    finally:
        _allowed.reset(token)


def note(path: Path) -> Path:
    """Note a file or folder that the samples depend on; returns it."""
    noted = _noted.get()
    if noted is not None:
        noted(path)
    return path


@contextmanager
def opening(task: str, source: Path) -> Iterator[IO[bytes]]:
    """Open a file to read its bytes.

    Raises:
        DataError: it cannot be read, or is no plain file.
    """
    try:
        with open_plain(note(source)) as file:
            yield file
    except OSError as error:
        raise DataError(f"task {task}: {source} cannot be read ({error.strerror or error})") from error


def json_items(task: str, source: Path, prefix: str = "item") -> Iterator[Any]:
    """Stream the items of a list in a JSON file.

    Args:
        prefix: where the list is, as ijson writes it: "item" for a file that is a list, "annotations.item" for a key.

    Raises:
        DataError: the file cannot be read, is no list where one is asked for, or ends or breaks before the list does.
    """
    if prefix == "item":
        _require_list(task, source)
    yield from _streamed(task, source, lambda file: ijson.items(file, prefix, use_float=True))


def json_pairs(task: str, source: Path, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Stream the keys and values of an object in a JSON file, likewise; the whole file's by default."""
    yield from _streamed(task, source, lambda file: ijson.kvitems(file, prefix, use_float=True))


def _require_list(task: str, source: Path) -> None:
    """ijson finds no item in a file that is an object, and says nothing."""
    with opening(task, source) as file:
        beginning = file.read(PEEKED).removeprefix(BYTE_ORDER_MARK).lstrip()
    if beginning.startswith(b"{"):
        hint = _list_inside(beginning)
        raise DataError(f"task {task}: {source} is an object, {{...}}; expected a list of items, [...]{hint}")


def _list_inside(beginning: bytes) -> str:
    """Where the items seem to be in a file that is no list, as the end of a message; none where that is not seen."""
    lines = ": it looks like one item a line; make it a list, or use the jsonl reader"
    first, _, rest = beginning.partition(b"\n")
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(first), dict) and rest.lstrip().startswith(b"{"):
            return lines
    with suppress(ijson.JSONError, ValueError, ArithmeticError):  # it is cut off where we stopped reading
        for prefix, event, _ in ijson.parse(beginning):
            if event == "start_array" and prefix and "." not in prefix:
                inside_an_item = prefix in ("conversations", "messages")
                return lines if inside_an_item else f": there is one under {shown(prefix)}; make the file that list"
    return ""


def _streamed(task: str, source: Path, parse: Any) -> Iterator[Any]:
    count = 0
    with opening(task, source) as file:
        if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            file.seek(0)
        try:
            for item in parse(file):
                yield item
                count += 1
        except (ijson.JSONError, ValueError, ArithmeticError) as error:  # numbers of any length
            message = error.args[0] if error.args else ""
            text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
            reason = text.partition("\n")[0].strip()  # what follows is a piece of the file
            raise DataError(f"task {task}: {source} is cut short or no JSON after {count} items ({reason})") from error


def json_whole(task: str, source: Path) -> Any:
    """A small JSON file at once.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    with opening(task, source) as file:
        try:
            return json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise DataError(f"task {task}: {source} is cut short or no JSON ({error!s:.200})") from error


def text_lines(task: str, source: Path) -> Iterator[tuple[str, bytes]]:
    """Stream a file's lines that are not blank, each with its place, "line 3"; one that is no UTF-8 is the caller's.

    Raises:
        DataError: it cannot be read, or has a line that is too long.
    """
    with opening(task, source) as file:
        lines = iter(lambda: file.readline(LONGEST_LINE + 1), b"")
        for number, line in enumerate(lines, start=1):
            if len(line) > LONGEST_LINE:
                raise DataError(f"task {task}: {source}: line {number} has more than {LONGEST_LINE:,} bytes")
            text = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip()
            if text:
                yield f"line {number}", text


def csv_rows(task: str, source: Path, columns: tuple[str, ...], delimiter: str = ",") -> Iterator[tuple[str, dict]]:
    """Stream a CSV file's rows as column name to text, each with its place, "row 3".

    Raises:
        DataError: it cannot be read, or lacks one of the columns.
    """
    with opening(task, source) as file:
        lines = (line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(file))
        rows = csv.DictReader(lines, delimiter=delimiter)
        try:
            missing = [name for name in columns if name not in (rows.fieldnames or ())]
            if missing:
                found = ", ".join(rows.fieldnames or ()) or "nothing"
                raise DataError(f"task {task}: {source} has no column {shown(missing[0])}; found {found:.200}")
            for number, row in enumerate(rows, start=1):
                yield f"row {number}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"task {task}: {source} is not a CSV file in UTF-8 ({error})") from error


def inside(folder: Path, name: Any, kind: str) -> Path:
    """The path of a file below a folder, or below one of those that the recipe allows besides; links are followed.

    Args:
        name: relative to the folder.
        kind: what the file is, for messages: "image", "audio".

    Raises:
        Unusable: it lies outside these folders, or does not exist. TypeError: the name is no text.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"{kind} is {shown(name)}; expected a path below {folder}")
    path = folder / name
    try:
        real = Path(os.path.realpath(path))
        exists = real.is_file()
    except (OSError, ValueError) as error:  # too long a name; a null byte
        raise Unusable(f"{kind} cannot be looked up ({error})", Path(f"{name:.60}")) from error
    if not any(real.is_relative_to(os.path.realpath(root)) for root in (folder, *_allowed.get())):
        raise Unusable(f"{kind} lies outside the task's folder and its media_roots", path)
    if not exists:
        raise Unusable(f"{kind} does not exist", path)
    return real
