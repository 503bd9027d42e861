"""A-OKVQA (Schwenk et al. 2022), version 1.0: questions on COCO's photos that ask for knowledge of the world.

Layout, as the owners' repository allenai/aokvqa describes it (`load_aokvqa.py` reads it), with COCO 2017's images,
unpacked into one folder:

| file | |
| --- | --- |
| `aokvqa_v1p0_{train,val,test}.json` | a list of questions |
| `{train,val,test}2017/000000IMAGE_ID.jpg` | the number has 12 digits |

Of a question are read: `question_id` (a text, the sample's id), `image_id` (a number), `question` and, by `form`:

| form | fields | learnt | references | metric |
| --- | --- | --- | --- | --- |
| `multiple_choice` | `choices`, `correct_choice_idx` | the letter | the right text, its letter | `multiple_choice` |
| `direct_answer` | ten `direct_answers` | the most frequent, the first of several | all ten | `aokvqa_direct` |

`direct_answer` leaves out the questions marked `difficult_direct_answer`, as the owners' evaluation does. The test file
has the choices and no answers.

The two forms need two response formats, so the reader puts them below the question itself; one in the recipe comes on
top of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.answers import (
    OPTION_LETTER,
    SHORT_ANSWER,
    choices_of,
    lettered,
    most_frequent,
    number_of,
    right_choice,
    texts_of,
    with_ids,
)
from equipoise.data.readers.files import inside, json_items
from equipoise.data.readers.reader import Flaw, Reader, check_option, check_split, mapping, samples_of, text_of
from equipoise.data.sample import Sample, exchange

#: The owners' name of each split.
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
UNANSWERED = frozenset({"test"})
FORMS = ("multiple_choice", "direct_answer")


def read(task: str, split: str, path: Path, form: str = "multiple_choice") -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        form: `multiple_choice` or `direct_answer`.
    """
    check_split(task, "aokvqa", split, SPLITS)
    check_option(task, "aokvqa", "form", form, FORMS)
    source = path / f"aokvqa_v1p0_{SPLITS[split]}.json"
    wording = _choice if form == "multiple_choice" else _direct

    def make(item: Any) -> Sample:
        row = mapping(item)
        image = f"{number_of(row['image_id'], 'image_id'):012d}.jpg"
        question, answer, references = wording(row, split not in UNANSWERED)
        return Sample(
            id=text_of(row["question_id"], "question_id"),
            task=task,
            turns=exchange(question, answer),
            images=(inside(path / f"{SPLITS[split]}2017", image, "image"),),
            references=references,
        )

    rows = with_ids(json_items(task, source), "question_id")
    if form == "direct_answer":
        rows = ((identity, row) for identity, row in rows if not _is_difficult(row))
    yield from samples_of(rows, make, source)


def _choice(row: dict[str, Any], answered: bool) -> tuple[str, str, tuple[str, ...]]:
    """The question, the answer to learn and the references: choices under letters."""
    choices = choices_of(row["choices"])
    question = f"{lettered(text_of(row['question'], 'question'), choices)}\n{OPTION_LETTER}"
    if not answered:
        return question, "", ()
    text, letter = right_choice(choices, row["correct_choice_idx"], "correct_choice_idx")
    return question, letter, (text, letter)


def _direct(row: dict[str, Any], answered: bool) -> tuple[str, str, tuple[str, ...]]:
    """Likewise: the annotators' own words."""
    question = f"{text_of(row['question'], 'question')}\n{SHORT_ANSWER}"
    answers = texts_of(row["direct_answers"], "direct_answers") if answered else ()
    return question, most_frequent(answers) if answers else "", answers


def _is_difficult(row: Any) -> bool:
    return isinstance(row, dict) and row.get("difficult_direct_answer") is True


READER = Reader(read, splits=tuple(SPLITS), unanswered=UNANSWERED)
