"""OCR-VQA-200K (Mishra et al. 2019): questions on the covers of books; metric `exact_match`.

Layout, as ocr-vqa.github.io publishes it:

| file | |
| --- | --- |
| `dataset.json` | `{IMAGE_ID: {"imageURL", "questions": [...], "answers": [...], "split", ...}, ...}` |
| `images/` | what the owners' script `loadDataset.py` fetches from the URLs: the image's id with the URL's ending |

`split` is 1 for train, 2 for validation, 3 for test; all have answers. Some covers are GIFs; LLaVA-1.5's data has them
all as `ID.jpg`, which is read where there is no file with the URL's ending. A sample is one question; its id is the
image's and its place there, `ID-1`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from equipoise.data.readers.answers import SHORT_ANSWER
from equipoise.data.readers.files import inside, json_pairs
from equipoise.data.readers.reader import (
    Flaw,
    Reader,
    check_split,
    items_of,
    mapping,
    samples_of,
    text_of,
)
from equipoise.data.sample import Sample, exchange
from equipoise.texts import shown

#: The owners' number of each split.
SPLITS = {"train": 1, "validation": 2, "test": 3}
NUMBERS = tuple(SPLITS.values())

# An image's id, its entry in the file, and the place of one of its questions.
Question = tuple[str, Any, int]


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    check_split(task, "ocrvqa", split, SPLITS)
    source = path / "dataset.json"

    def make(item: Question) -> Sample:
        image, entry, place = item
        question, answer = _exchanges(entry)[place]
        reference = text_of(answer, "answer")
        return Sample(
            id=f"{image}-{place + 1}",
            task=task,
            turns=exchange(text_of(question, "question"), reference),
            images=(_image(path / "images", image, text_of(entry["imageURL"], "imageURL")),),
            references=(reference,),
        )

    yield from samples_of(_questions(json_pairs(task, source), SPLITS[split]), make, source)


def _questions(entries: Iterator[tuple[str, Any]], split: int) -> Iterator[tuple[str, Question]]:
    """Each question of the split with its id; an image whose entry cannot be used stands for its questions."""
    for image, entry in entries:
        number = entry.get("split") if isinstance(entry, dict) else None
        if number in NUMBERS and number != split:
            continue
        try:
            places = range(len(_exchanges(entry)))
        except (ValueError, KeyError, TypeError):
            yield image, (image, entry, 0)  # to fail once more where samples are made
            continue
        for place in places:
            yield f"{image}-{place + 1}", (image, entry, place)


def _exchanges(entry: Any) -> list[tuple[Any, Any]]:
    """The questions of an image's entry with their answers."""
    row = mapping(entry)
    if row["split"] not in NUMBERS:
        raise ValueError(f"split is {shown(row['split'])}; allowed: {', '.join(map(str, NUMBERS))}")
    questions, answers = items_of(row["questions"], "questions"), items_of(row["answers"], "answers")
    if len(questions) != len(answers):
        raise ValueError(f"found {len(questions)} questions and {len(answers)} answers; expected as many")
    return list(zip(questions, answers))


def _image(folder: Path, image: str, url: str) -> Path:
    """The file of an image: with the URL's ending, or with `.jpg` where only that is there."""
    names = (f"{image}{PurePosixPath(url).suffix}", f"{image}.jpg")
    name = next((name for name in names if os.path.isfile(folder / name)), names[0])
    return inside(folder, name, "image")


READER = Reader(read, splits=tuple(SPLITS), response_format=SHORT_ANSWER)
