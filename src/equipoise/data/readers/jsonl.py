"""A user's own data: a folder with one JSON-lines file a split, `train.jsonl`, `validation.jsonl`, `test.jsonl`.

Each line is an object:

| key | |
| --- | --- |
| `prompt`, `answer` | one question and the answer to learn, or |
| `messages` | a conversation, `[{"role": "user", "content": "..."}, {"role": "assistant", ...}]`, ending in an answer |
| `image` or `images` | a path or a list of paths, relative to the folder and inside it; optional |
| `audio` or `audios` | likewise |
| `references` | every answer that counts as right; by default the one to learn |
| `box` | the region it is about: left, top, right, bottom, as shares of the image's width and height; optional |
| `id` | optional; the line number by default |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from equipoise.data.readers.files import text_lines
from equipoise.data.readers.plain import plain_sample
from equipoise.data.readers.reader import Flaw, Reader, samples_of
from equipoise.data.sample import Sample
from equipoise.errors import DataError


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split.

    Raises:
        DataError: the path is a file, or the folder has no file of the split.
    """
    if path.is_file():
        raise DataError(f"task {task}: {path} is a file; the jsonl reader takes the folder that holds {split}.jsonl")
    source = path / f"{split}.jsonl"

    def make(place_and_line: tuple[str, bytes]) -> Sample:
        place, line = place_and_line
        return plain_sample(task, path, place.removeprefix("line "), json.loads(line.decode()))

    lines = ((place, (place, line)) for place, line in text_lines(task, source))
    yield from samples_of(lines, make, source)


READER = Reader(read)
