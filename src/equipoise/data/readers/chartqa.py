"""ChartQA (Masry et al. 2022): questions on charts; metric `relaxed_accuracy`, and `exact_match` in CoTBal.

Layout, as the owners' repository vis-nlp/ChartQA describes it; the task's path is the folder that holds
`ChartQA Dataset`:

| file below `ChartQA Dataset/{train,val,test}` | |
| --- | --- |
| `SPLIT_human.json`, `SPLIT_augmented.json` | `[{"imgname", "query", "label"}, ...]`, asked by people or by a machine |
| `png/IMGNAME` | the charts |
| `tables/NAME.csv`, `annotations/NAME.json` | what the charts show, and where; not read |

Questions have no ids of their own: a sample's is its file's kind and its place there, `human-1`. All splits have
answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.answers import SHORT_ANSWER
from equipoise.data.readers.files import inside, json_items
from equipoise.data.readers.reader import Flaw, Reader, check_option, check_split, mapping, samples_of, text_of
from equipoise.data.sample import Sample, exchange

FOLDER = "ChartQA Dataset"
#: The owners' name of each split.
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
KINDS = {"human": ("human",), "augmented": ("augmented",), "both": ("human", "augmented")}


def read(task: str, split: str, path: Path, subset: str = "both") -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        subset: `human`, `augmented`, or `both`, one after the other.
    """
    check_split(task, "chartqa", split, SPLITS)
    check_option(task, "chartqa", "subset", subset, KINDS)
    folder = path / FOLDER / SPLITS[split]

    def make(item: tuple[str, Any]) -> Sample:
        identity, row = item[0], mapping(item[1])
        label = text_of(row["label"], "label")
        return Sample(
            id=identity,
            task=task,
            turns=exchange(text_of(row["query"], "query"), label),
            images=(inside(folder / "png", row["imgname"], "image"),),
            references=(label,),
        )

    for kind in KINDS[subset]:
        source = folder / f"{SPLITS[split]}_{kind}.json"
        yield from samples_of(_placed(kind, json_items(task, source)), make, source)


def _placed(kind: str, rows: Iterator[Any]) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Each row with the id made for it, twice: for messages, and to make the sample of."""
    for number, row in enumerate(rows, start=1):
        yield f"{kind}-{number}", (f"{kind}-{number}", row)


READER = Reader(read, splits=tuple(SPLITS), response_format=SHORT_ANSWER)
