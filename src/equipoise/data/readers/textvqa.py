"""TextVQA (Singh et al. 2019), version 0.5.1: questions whose answer is written in the image; metric `vqa_accuracy`.

Layout, as textvqa.org publishes it (and `datasets`' script `textvqa.py` reads it), unpacked into one folder:

| file | |
| --- | --- |
| `TextVQA_0.5.1_{train,val,test}.json` | `{"dataset_name", ..., "data": [question, ...]}` |
| `train_images/IMAGE_ID.jpg` | of train and val, `train_val_images.zip` |
| `test_images/IMAGE_ID.jpg` | `test_images.zip` |

Of a question are read: `question_id` (a number, the sample's id), `question`, `image_id` (a text) and `answers`, those
of ten annotators. The test file has no `answers`. The most frequent answer is learnt, the first of several; all ten
are references, repetitions and empty ones included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.answers import SHORT_ANSWER, most_frequent, number_of, texts_of, with_ids
from equipoise.data.readers.files import inside, json_items
from equipoise.data.readers.reader import Flaw, Reader, check_split, mapping, samples_of, text_of
from equipoise.data.sample import Sample, exchange

#: The owners' name of each split.
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
UNANSWERED = frozenset({"test"})


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    check_split(task, "textvqa", split, SPLITS)
    source = path / f"TextVQA_0.5.1_{SPLITS[split]}.json"
    images = path / ("test_images" if split == "test" else "train_images")

    def make(item: Any) -> Sample:
        row = mapping(item)
        answers = () if split in UNANSWERED else texts_of(row["answers"], "answers")
        return Sample(
            id=str(number_of(row["question_id"], "question_id")),
            task=task,
            turns=exchange(text_of(row["question"], "question"), most_frequent(answers) if answers else ""),
            images=(inside(images, f"{text_of(row['image_id'], 'image_id')}.jpg", "image"),),
            references=answers,
        )

    rows = with_ids(json_items(task, source, "data.item"), "question_id")
    yield from samples_of(rows, make, source)


READER = Reader(read, splits=tuple(SPLITS), response_format=SHORT_ANSWER, unanswered=UNANSWERED)
