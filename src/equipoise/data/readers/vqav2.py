"""VQAv2 (Goyal et al. 2017): open questions on COCO's photos, ten answers each; metric `vqa_accuracy`.

Layout, as visualqa.org's download page describes it, with COCO's images, unpacked into one folder:

| file | |
| --- | --- |
| `v2_OpenEnded_mscoco_SUBSET_questions.json` | `{..., "questions": [{"image_id", "question", "question_id"}, ...]}` |
| `v2_mscoco_SUBSET_annotations.json` | `{..., "annotations": [annotation, ...]}`, of train2014 and val2014 |
| `FOLDER/COCO_FOLDER_000000IMAGE_ID.jpg` | `train2014`, `val2014`, `test2015`; the number has 12 digits |

SUBSET is train2014, val2014, test2015 or test-dev2015; the last is a part of test2015 and has its images. The sample's
id is `question_id`, under which the evaluation server expects the answer. Of an annotation, `multiple_choice_answer`
(the most frequent one) is learnt; the ten `answers`, each an object with `answer`, are the references.

Questions are streamed. The answers are held in memory while a split is read, about 110 MB for as many as train2014 has,
since the owners do not promise the two files the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import Any

from equipoise.data.readers.answers import SHORT_ANSWER, number_of, texts_of, with_ids
from equipoise.data.readers.files import inside, json_items
from equipoise.data.readers.reader import (
    Flaw,
    Reader,
    Unusable,
    check_split,
    items_of,
    mapping,
    samples_of,
    text_of,
)
from equipoise.data.sample import Sample, exchange

#: The owners' name of each split.
SUBSETS = {
    "train": "train2014",
    "validation": "val2014",
    "test": "test2015",
    "test-dev": "test-dev2015",
    "val": "val2014",
    "train2014": "train2014",
    "val2014": "val2014",
    "test2015": "test2015",
    "test-dev2015": "test-dev2015",
}
UNANSWERED = frozenset(split for split, subset in SUBSETS.items() if subset.startswith("test"))

# The answer to learn, then the ten; or why the annotation cannot be used.
Answers = tuple[str, ...] | Unusable


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    check_split(task, "vqav2", split, SUBSETS)
    subset = SUBSETS[split]
    source = path / f"v2_OpenEnded_mscoco_{subset}_questions.json"
    annotations = path / f"v2_mscoco_{subset}_annotations.json"
    folder = subset.replace("test-dev", "test")
    answers = None if split in UNANSWERED else _answers(task, annotations)

    def make(item: Any) -> Sample:
        row = mapping(item)
        question = number_of(row["question_id"], "question_id")
        image = f"COCO_{folder}_{number_of(row['image_id'], 'image_id'):012d}.jpg"
        learnt, *references = ("",) if answers is None else _found(answers, question, annotations)
        return Sample(
            id=str(question),
            task=task,
            turns=exchange(text_of(row["question"], "question"), learnt),
            images=(inside(path / folder, image, "image"),),
            references=tuple(references),
        )

    rows = with_ids(json_items(task, source, "questions.item"), "question_id")
    yield from samples_of(rows, make, source)


def _answers(task: str, source: Path) -> dict[int, Answers]:
    """The answers of each question that has an annotation."""
    return {
        row["question_id"]: _reduced(row, source)
        for row in json_items(task, source, "annotations.item")
        if isinstance(row, dict) and isinstance(row.get("question_id"), int)
    }


def _reduced(row: dict[str, Any], source: Path) -> Answers:
    try:
        given = [mapping(answer).get("answer") for answer in items_of(row.get("answers"), "answers")]
        learnt = text_of(row.get("multiple_choice_answer"), "multiple_choice_answer")
        return tuple(intern(answer) for answer in (learnt, *texts_of(given, "answers")))
    except (ValueError, TypeError) as error:
        return Unusable(str(error), source)


def _found(answers: dict[int, Answers], question: int, source: Path) -> tuple[str, ...]:
    found = answers.get(question, Unusable("the question has no annotation", source))
    if isinstance(found, Unusable):
        raise found
    return found


READER = Reader(read, splits=tuple(SUBSETS), response_format=SHORT_ANSWER, unanswered=UNANSWERED)
