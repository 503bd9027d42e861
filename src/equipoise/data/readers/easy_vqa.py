"""easy-VQA (Zhou 2019): questions on 64x64 images of one coloured shape; MIT, packaged as `easy-vqa` 1.0.

Layout, as its README describes it: `data/{train,test}/questions.json`, a list of [question, answer, image id], and
`data/{train,test}/images/ID.png`. Images are divided by id, so that no two splits share one:

| split | images |
| --- | --- |
| align | train, the first 1,600 |
| train | train, the next 2,000 |
| validation | train, the last 400 |
| test | test, all 1,000 |

`caption=True` turns each image into one captioning sample, worded from the answers to the shape and colour questions;
`yes_no=False` leaves out the three questions in four that yes or no answers. The alignment stage learns from both.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError
from equipoise.packages import EASY_VQA, fetch

SPLITS = {
    "align": ("train", range(1600)),
    "train": ("train", range(1600, 3600)),
    "validation": ("train", range(3600, 4000)),
    "test": ("test", range(1000)),
}
SHAPES = ("circle", "rectangle", "triangle")
CAPTION_PROMPT = "Describe the image."


def read(task: str, split: str, path: Path | None = None, caption: bool = False, yes_no: bool = True) -> list[Sample]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `align`, `train`, `validation` or `test`.
        path: the folder that holds `data/`; the packaged copy when None.
        caption: one caption an image instead of its questions.
        yes_no: keep the questions that are answered by yes or no.

    Raises:
        DataError: an unknown split, or files that are not easy-VQA's.
    """
    if split not in SPLITS:
        raise DataError(f"task {task}: easy_vqa has no split {split!r}; allowed: {', '.join(SPLITS)}")
    root = path if path is not None else fetch(EASY_VQA) / "easy_vqa"
    folder, ids = SPLITS[split]
    source = root / "data" / folder / "questions.json"
    try:
        rows = [(str(q), str(a), int(i)) for q, a, i in json.loads(source.read_text(encoding="utf-8"))]
    except OSError as error:
        raise DataError(f"task {task}: {source} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"task {task}: {source} is not a JSON list of [question, answer, image id]") from error
    images = root / "data" / folder / "images"
    rows = [row for row in rows if row[2] in ids]
    if caption:
        rows = _captions(rows)
    elif not yes_no:
        rows = [row for row in rows if row[1] not in ("yes", "no")]
    return [
        Sample(
            id=f"{folder}-{image}-{index}",
            task=task,
            turns=(Turn("user", question), Turn("assistant", answer)),
            images=(images / f"{image}.png",),
            references=(answer,),
        )
        for index, (question, answer, image) in enumerate(rows)
    ]


def _captions(rows: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
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
