"""Names of American places, written into pictures: the cities of the airports in vega-datasets; MIT, packaged as
`vega-datasets` 0.9.0.

Layout: `_data/airports.csv`, whose column `city` is read. **The names are real, the pictures are not**: each is drawn
here, in dark on light, at a place, size and colours that a hash of what is written chooses. Names of three to ten
letters and spaces are taken, each once, and a name's split is drawn from itself, whatever the kind. `kind` chooses the
task, for the metric exact match:

| kind | question | answer | train | validation | test |
| --- | --- | --- | --- | --- | --- |
| `read` | What is written? | the one name | 1,642 | 205 | 219 |
| `count` | How many names are written? | 1 to 7, each equally often | 411 | 52 | 55 |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from PIL import Image

from equipoise.data.readers.drawing import SIDE, canvas, drawn, fitting, font
from equipoise.data.readers.files import csv_rows
from equipoise.data.readers.reader import Flaw, Reader, check_option, check_split
from equipoise.data.readers.splits import SPLITS, split_of, words
from equipoise.data.sample import Sample, exchange
from equipoise.packages import VEGA, fetch

QUESTIONS = {"read": "What is written?", "count": "How many names are written?"}
SHORTEST, LONGEST = 3, 10
MOST = 7
PAPERS = ((255, 255, 255), (255, 247, 224), (226, 240, 255), (230, 248, 228), (250, 230, 238))
INKS = ((20, 20, 20), (130, 20, 30), (20, 50, 130), (15, 90, 50), (90, 30, 110), (110, 60, 10))
MARGIN = 10
SMALLEST, LARGEST = 30, 50  # pixels; half as many where the embedded tower sees them
IN_A_LIST = 26


def read(task: str, split: str, path: Path | None = None, kind: str = "read") -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `_data/`; the packaged copy when None.
        kind: `read` or `count`.

    Raises:
        DataError: an unknown split or kind, or a table that is not vega-datasets'.
    """
    check_split(task, "rendered_text", split, SPLITS)
    check_option(task, "rendered_text", "kind", kind, QUESTIONS)
    names = _names(task, path if path is not None else fetch(VEGA) / "vega_datasets")
    pages: dict[str, dict[str, tuple[str, ...]]]
    if kind == "read":
        pages = {one: {words(name).replace(" ", "-"): (name,) for name in names[one]} for one in SPLITS}
        images = drawn("names", {key: page[0] for one in SPLITS for key, page in pages[one].items()}, draw_name)
    else:
        pages = {one: dict(_lists(one, names[one])) for one in SPLITS}
        images = drawn("lists", {key: page for one in SPLITS for key, page in pages[one].items()}, draw_list)
    for key, page in pages[split].items():
        answer = page[0] if kind == "read" else str(len(page))
        yield Sample(key, task, exchange(QUESTIONS[kind], answer), (images / f"{key}.png",), (answer,))


READER = Reader(read, SPLITS, needs_path=False)


def _names(task: str, folder: Path) -> dict[str, list[str]]:
    """The names of each split, in the order of the table."""
    found: dict[str, str] = {}
    for _, row in csv_rows(task, folder / "_data" / "airports.csv", ("city",)):
        name = " ".join((row["city"] or "").split())
        if SHORTEST <= len(name) <= LONGEST and name.replace(" ", "").isalpha():
            found.setdefault(words(name), name)
    return {split: [name for key, name in found.items() if split_of(key) == split] for split in SPLITS}


def _lists(split: str, names: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Lists of one name, of two, and so on up to the longest, then of one again, while there are names for them."""
    for number in count():
        length = 1 + number % MOST
        if len(names) < length:
            return
        yield f"{split}-{number}", tuple(names[:length])
        names = names[length:]


def draw_name(name: str) -> Image.Image:
    """Draw one name in large letters."""
    chance = _chance(name)
    image, pen = canvas(PAPERS[chance[0] % len(PAPERS)])
    letters = fitting(name, SIDE - 2 * MARGIN, SMALLEST + chance[2] % (LARGEST - SMALLEST + 1))
    left = MARGIN + (SIDE - 2 * MARGIN - letters.getlength(name)) * chance[3] / 255
    middle = 40 + (SIDE - 80) * chance[4] / 255
    pen.text((left, middle), name, INKS[chance[1] % len(INKS)], letters, "lm")
    return image


def draw_list(names: tuple[str, ...]) -> Image.Image:
    """Draw a few names below one another, with gaps."""
    chance = _chance("\n".join(names))
    image, pen = canvas(PAPERS[chance[0] % len(PAPERS)])
    height = SIDE / (MOST + 1)
    rows = sorted(sorted(range(MOST + 1), key=lambda row: chance[10 + row])[: len(names)])
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        left = MARGIN + (SIDE - 2 * MARGIN - font(IN_A_LIST).getlength(name)) * chance[2 + number] / 255
        pen.text((left, (row + 0.5) * height), name, INKS[chance[1] % len(INKS)], font(IN_A_LIST), "lm")
    return image


def _chance(text: str) -> bytes:
    """Bytes that look random and are the same on every machine."""
    return hashlib.sha256(text.encode()).digest()
