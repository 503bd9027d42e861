"""Rows of Arrow tables in the form that users write their own data in (`parquet`, `saved`).

The keys are those of `equipoise.data.readers.jsonl`. An image or clip may be a path, or {bytes, path} as `datasets`
stores them: then its bytes become a file, once, named by their digest in the cache folder, for a sample holds paths.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.files import inside, note
from equipoise.data.readers.plain import plain_sample
from equipoise.data.readers.reader import Flaw, samples_of
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import cache_folder
from equipoise.texts import shown

KEYS = ("id", "prompt", "answer", "messages", "image", "images", "audio", "audios", "references", "box")
ROWS = 64  # read at once: rows with embedded images are large


def table_samples(
    task: str, folder: Path, rows: Iterable[tuple[int, dict[str, Any]]], source: Path
) -> Iterator[Sample | Flaw]:
    """Make samples of a table's rows.

    Args:
        folder: paths of images and audio are relative to it.
        rows: each with its number, which is the id of one that has none.
        source: the file or folder that holds the rows.
    """
    items = ((str(number), (str(number), row)) for number, row in rows)
    noted = False

    def find(folder: Path, value: Any, kind: str) -> Path:
        nonlocal noted
        path = media_file(folder, value, kind)
        if not noted and path.is_relative_to(cache_folder()):
            noted = bool(note(path))  # one stands for all: an index must not outlive the cache folder
        return path

    yield from samples_of(items, lambda item: plain_sample(task, folder, *item, find), source)


def media_file(folder: Path, value: Any, kind: str) -> Path:
    """The file of an image or clip: below the folder, or made of the bytes that come with the row.

    Raises:
        Unusable: the file lies outside the folder, or does not exist. TypeError: it is neither path nor bytes.
        DataError: the file cannot be made.
    """
    if not isinstance(value, dict):
        return inside(folder, value, kind)
    content, name = value.get("bytes"), value.get("path")
    if content is None:
        return inside(folder, name, kind)
    if not isinstance(content, bytes) or not content:
        raise TypeError(f"{kind} has bytes {shown(content)}; expected those of a file")
    return _kept(content, name)


def _kept(content: bytes, name: Any) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    ending = re.search(r"\.\w{1,8}$", name) if isinstance(name, str) else None
    target = cache_folder() / "media" / digest[:2] / f"{digest}{ending[0].lower() if ending else ''}"
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".writing-{os.getpid()}-{target.name}")
        scratch.write_bytes(content)
        os.replace(scratch, target)
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error.strerror or error}); set EQUIPOISE_CACHE") from error
    return target
