"""easy-VQA (Zhou 2019): questions on 64x64 images of one coloured shape; MIT, packaged as `easy-vqa` 1.0.

Layout, as its README describes it: `data/{train,test}/questions.json`, a list of [question, answer, image id], and
`data/{train,test}/images/ID.png`. Images are divided by id, so that no two splits share one:

| split | images |
| --- | --- |
| align | train, the first 1,600 |
| train | train, the next 2,000 |
| validation | train, the last 400 |
| test | test, all 1,000 |

`kind` chooses the task:

| kind | sample |
| --- | --- |
| `vqa` | image and question -> answer; `yes_no=False` leaves out the three in four that yes or no answers |
| `caption` | image -> "a red circle", worded from the answers to the shape and colour questions |
| `box` | image and caption -> where the shape is: left, top, right and bottom edge, as shares of width and height |
| `region` | image and box -> caption |

Three images in five have both answers, and so a caption; the others are left out where one is needed. The package has
no boxes: ours are found in the pixels, and asked for in RefCOCO's words. The alignment stage learns from captions, and
from questions without yes or no.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.images import load_image
from equipoise.data.readers.boxes import box_sample, box_text
from equipoise.data.readers.files import inside, json_whole, note
from equipoise.data.readers.reader import Flaw, Reader, Unusable, check_option, check_split, samples_of, text_of
from equipoise.data.readers.refcoco import CAPTION_PROMPT as REGION_PROMPT
from equipoise.data.sample import Box, Sample, exchange
from equipoise.errors import DataError
from equipoise.packages import EASY_VQA, fetch
from equipoise.texts import shown

SPLITS = {
    "align": ("train", range(1600)),
    "train": ("train", range(1600, 3600)),
    "validation": ("train", range(3600, 4000)),
    "test": ("test", range(1000)),
}
KINDS = ("vqa", "caption", "box", "region")
SHAPES = ("circle", "rectangle", "triangle")
CAPTION_PROMPT = "Describe the image."
LARGEST = 4_000_000  # pixels; theirs are 64 x 64

Question = tuple[str, str, int]


def read(
    task: str, split: str, path: Path | None = None, kind: str = "vqa", yes_no: bool = True
) -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `align`, `train`, `validation` or `test`.
        path: the folder that holds `data/`; the packaged copy when None.
        kind: `vqa`, `caption`, `box` or `region`.
        yes_no: keep the questions that are answered by yes or no.

    Raises:
        DataError: an unknown split or kind, or a file that is not easy-VQA's.
    """
    check_split(task, "easy_vqa", split, SPLITS)
    check_option(task, "easy_vqa", "kind", kind, KINDS)
    folder, ids = SPLITS[split]
    root = (path if path is not None else fetch(EASY_VQA) / "easy_vqa") / "data" / folder
    source = root / "questions.json"
    content = json_whole(task, source)
    if not isinstance(content, list):
        raise DataError(f"task {task}: {source} holds no list; expected a list of [question, answer, image id]")
    rows: list[Question] = []
    for number, item in enumerate(content, start=1):
        try:
            rows.append(_question(item))
        except (ValueError, TypeError) as error:
            yield Flaw(f"item {number}", str(source), str(error))
    rows = [row for row in rows if row[2] in ids]
    if kind != "vqa":
        rows = _captions(rows)
    elif not yes_no:
        rows = [row for row in rows if row[1] not in ("yes", "no")]

    @cache  # ten questions an image
    def image_of(number: int) -> Path:
        return inside(root, f"images/{number}.png", "image")

    def make(place_and_row: tuple[str, Question]) -> Sample:
        place, (question, answer, number) = place_and_row
        image = image_of(number)
        if kind == "box":
            return box_sample(place, task, image, answer, shape_box(image))
        box = shape_box(image) if kind == "region" else None
        if box is not None:
            question = REGION_PROMPT.format(box_text(box, 2))
        return Sample(place, task, exchange(question, answer), (image,), (answer,), box=box)

    places = (f"{folder}-{row[2]}-{index}" for index, row in enumerate(rows))
    yield from samples_of(((place, (place, row)) for place, row in zip(places, rows, strict=False)), make, source)


READER = Reader(read, tuple(SPLITS), needs_path=False)


def shape_box(path: Path) -> Box:
    """The box of the one shape on an even background.

    Edges are smoothed: a pixel that the shape covers by half differs half as much from the background. One that differs
    by less than a quarter is where the smoothing reaches beyond the shape.

    Raises:
        Unusable: the image cannot be read, or shows nothing.
    """
    try:
        image = load_image(note(path), largest=LARGEST)
    except Exception as error:  # decoders raise what they like on broken bytes
        raise Unusable(f"image cannot be read ({getattr(error, 'strerror', None) or error})", path) from error
    width, height = image.size
    pixels = np.asarray(image, dtype=int)  # [H, W, 3]
    _, places, counts = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_index=True, return_counts=True)
    background = pixels.reshape(-1, 3)[places[counts.argmax()]]
    differences = np.abs(pixels - background).sum(axis=2)
    if not differences.any():
        raise Unusable("image shows no shape: all its pixels are of one colour", path)
    covered = 4 * differences >= differences.max()
    across, down = np.flatnonzero(covered.any(axis=0)), np.flatnonzero(covered.any(axis=1))
    return (
        float(across[0] / width),
        float(down[0] / height),
        float((across[-1] + 1) / width),
        float((down[-1] + 1) / height),
    )


def _question(item: Any) -> Question:
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[2], int):
        raise TypeError(f"found {shown(item)}; expected [question, answer, image id]")
    return text_of(item[0], "question"), text_of(item[1], "answer"), item[2]


def _captions(rows: list[Question]) -> list[Question]:
    """Word one caption for each image whose questions give away both its shape and its colour."""
    facts: dict[int, dict[str, str]] = defaultdict(dict)
    for _, answer, image in rows:
        if answer in SHAPES:
            facts[image]["shape"] = answer
        elif answer not in ("yes", "no"):
            facts[image]["colour"] = answer
    return [
        (CAPTION_PROMPT, f"a {fact['colour']} {fact['shape']}", image)
        for image, fact in sorted(facts.items())
        if len(fact) == 2
    ]
