"""GQA (Hudson and Manning 2019): compositional questions made from scene graphs; metric `exact_match`.

Layout, as the owners' download page describes it (`questions1.2.zip` and `images.zip`), unpacked into one folder:

| file | |
| --- | --- |
| `SPLIT_balanced_questions.json` | `{QUESTION_ID: {"question", "imageId", "answer", ...}, ...}` |
| `SPLIT_all_questions.json` | likewise, before balancing |
| `train_all_questions/train_all_questions_{0..9}.json` | the same of train, in ten parts |
| `images/IMAGE_ID.jpg` | of all splits |

SPLIT is train, val, testdev, test or challenge. Ids are texts. `answer` is learnt and the only reference, not the
sentence `fullAnswer`. The questions of test and challenge come without answers; papers report testdev.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.answers import SHORT_ANSWER
from equipoise.data.readers.files import inside, json_pairs
from equipoise.data.readers.reader import Flaw, Reader, check_option, check_split, mapping, samples_of, text_of
from equipoise.data.sample import Sample, exchange

#: The owners' name of each split.
SPLITS = {
    "train": "train",
    "validation": "val",
    "val": "val",
    "testdev": "testdev",
    "test": "test",
    "challenge": "challenge",
}
UNANSWERED = frozenset({"test", "challenge"})
QUESTIONS = ("balanced", "all")
PARTS = 10


def read(task: str, split: str, path: Path, questions: str = "balanced") -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        questions: `balanced`, or `all` of them.
    """
    check_split(task, "gqa", split, SPLITS)
    check_option(task, "gqa", "questions", questions, QUESTIONS)
    name = f"{SPLITS[split]}_{questions}_questions"
    sources = [path / f"{name}.json"]
    if name == "train_all_questions":
        sources = [path / name / f"{name}_{part}.json" for part in range(PARTS)]

    def make(item: tuple[str, Any]) -> Sample:
        identity, row = item[0], mapping(item[1])
        answer = "" if split in UNANSWERED else text_of(row["answer"], "answer")
        return Sample(
            id=identity,
            task=task,
            turns=exchange(text_of(row["question"], "question"), answer),
            images=(inside(path / "images", f"{text_of(row['imageId'], 'imageId')}.jpg", "image"),),
            references=() if split in UNANSWERED else (answer,),
        )

    for source in sources:
        yield from samples_of(((pair[0], pair) for pair in json_pairs(task, source)), make, source)


READER = Reader(read, splits=tuple(SPLITS), response_format=SHORT_ANSWER, unanswered=UNANSWERED)
