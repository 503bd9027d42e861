"""IconQA (Lu et al. 2021): questions on drawings of icons, for school children; three sub-tasks.

Layout, as the owners' `iconqa_data.zip` has it (described in the repository lupantech/IconQA and read by mmpretrain's
`iconqa.py`); the task's path is the folder that holds `iconqa_data`:

| file below `iconqa_data/iconqa/{train,val,test}/SUBTASK/ID` | |
| --- | --- |
| `data.json` | `{"question", "choices", "answer", "ques_type", "grade", "label"}` |
| `image.png` | the drawing |
| `choice_0.png`, `choice_1.png` ... | the choices, in `choose_img` |

| subtask | `choices` | `answer` | metric | learnt | references |
| --- | --- | --- | --- | --- | --- |
| `choose_txt` | texts | a choice's number, from 0 | `multiple_choice` | the letter | the right choice, its letter |
| `choose_img` | names of files | likewise | `multiple_choice` | the letter | "image 3", its letter |
| `fill_in_blank` | none | a text | `exact_match` | the answer | the answer |

A sample of `choose_img` has several images: the drawing, then the choices in their order. All of them stand before the
question, which lists the choices by number: "A. image 2", "B. image 3" ... All splits have answers. The owners'
`problems.json` and `pid_splits.json` repeat what the folders hold and are not read.

Letters and words need two response formats, so the reader puts them below the question itself; one in the recipe comes
on top of that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.answers import OPTION_LETTER, SHORT_ANSWER, choices_of, lettered, right_choice
from equipoise.data.readers.files import inside, note, opening
from equipoise.data.readers.reader import Flaw, Reader, check_option, check_split, mapping, samples_of, text_of
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError

FOLDER = Path("iconqa_data/iconqa")
#: The owners' name of each split.
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
SUBTASKS = ("choose_txt", "choose_img", "fill_in_blank")


def read(task: str, split: str, path: Path, subtask: str = "choose_txt") -> Iterator[Sample | Flaw]:
    """Read one split of one sub-task, in the order of the ids.

    Args:
        subtask: `choose_txt`, `choose_img` or `fill_in_blank`.
    """
    check_split(task, "iconqa", split, SPLITS)
    check_option(task, "iconqa", "subtask", subtask, SUBTASKS)
    folder = path / FOLDER / SPLITS[split] / subtask

    def make(identity: str) -> Sample:
        problem = folder / identity
        row = _problem(task, problem)
        images = [inside(problem, "image.png", "image")]
        question = text_of(row["question"], "question")
        references: tuple[str, ...]
        if subtask == "fill_in_blank":
            references = (text_of(row["answer"], "answer"),)
            prompt = f"{question}\n{SHORT_ANSWER}"
        else:
            choices = choices_of(row["choices"])
            if subtask == "choose_img":
                images += [inside(problem, choice, "image") for choice in choices]
                choices = [f"image {number}" for number in range(2, len(images) + 1)]
            references = right_choice(choices, row["answer"], "answer")
            prompt = f"{lettered(question, choices)}\n{OPTION_LETTER}"
        return Sample(identity, task, exchange(prompt, references[-1]), tuple(images), references)

    for identity in _identities(task, folder):
        yield from samples_of([(identity, identity)], make, folder / identity / "data.json")


def _identities(task: str, folder: Path) -> list[str]:
    """The ids of a sub-task's problems: the names of its folders, shorter numbers first."""
    try:
        with os.scandir(note(folder)) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError as error:
        raise DataError(f"task {task}: {folder} cannot be read ({error.strerror})") from error
    return sorted(names, key=lambda name: (len(name), name))


def _problem(task: str, folder: Path) -> dict[str, Any]:
    with opening(task, inside(folder, "data.json", "problem")) as file:
        try:
            return mapping(json.loads(file.read()))
        except ValueError as error:
            raise ValueError(f"the file is cut short or no JSON ({error})") from error


READER = Reader(read, splits=tuple(SPLITS))
