"""MACS (Martín-Morató and Mesaros 2021): what several people heard in city sounds, a sentence and tags each.

Layout, as Zenodo's record 5114771 has it, and the audio of TAU Urban Acoustic Scenes 2019, development (record
2589280), unpacked beside it or into `audio/`:

```
MACS.yaml             files: [{filename, annotations: [{annotator_id, sentence, tags: [...]}]}]
MACS_competence.csv   not read
TAU-urban-acoustic-scenes-2019-development/audio/SCENE-CITY-LOCATION-SEGMENT-DEVICE.wav
```

The owners divide nothing. Here the place of recording, `CITY-LOCATION`, decides by its hash (80% of places train, 10%
validation, 10% test): the 10-second clips of one place are cut from one recording and sound alike.

In `train` each sentence is a sample to learn, "NAME.wav#2"; in the other splits each clip is one, whose answer is the
first sentence. The references are all sentences about the clip. CoMMIT does not say how it asks: the prompt is that
of SALMONN's own audio captioning.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from equipoise.data.readers.files import inside, opening
from equipoise.data.readers.reader import Flaw, Reader, check_split, items_of, mapping, samples_of, text_of
from equipoise.data.readers.splits import SPLITS, split_of
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError
from equipoise.yaml_reading import FastLoader, load

TAU = Path("TAU-urban-acoustic-scenes-2019-development/audio")
PROMPT = "Please describe the audio."


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    check_split(task, "macs", split, SPLITS)
    source = path / "MACS.yaml"
    audio = path / TAU if (path / TAU).is_dir() else path / "audio"

    def make(row: Any) -> list[Sample]:
        row = mapping(row)
        name = text_of(row["filename"], "filename")
        annotations = [mapping(annotation) for annotation in items_of(row["annotations"], "annotations")]
        sentences = tuple(text_of(annotation["sentence"], "sentence") for annotation in annotations)
        clip = inside(audio, name, "audio")
        learnt = sentences if split == "train" else sentences[:1]
        return [
            Sample(
                id=f"{name}#{number}" if split == "train" else name,
                task=task,
                turns=exchange(PROMPT, sentence),
                audios=(clip,),
                references=sentences,
            )
            for number, sentence in enumerate(learnt, start=1)
        ]

    rows = ((_name(row, number), row) for number, row in enumerate(_rows(task, source), start=1))
    yield from samples_of(((name, row) for name, row in rows if split_of(place_of(name)) == split), make, source)


def place_of(name: str) -> str:
    """Where a clip was recorded, "lisbon-1" of "airport-lisbon-1-40-a.wav"; of another kind of name, the name."""
    parts = name.split("-")
    return "-".join(parts[1:3]) if len(parts) == 5 else name


def _name(row: Any, number: int) -> str:
    name = row.get("filename") if isinstance(row, dict) else None
    return name if isinstance(name, str) and name else f"file {number}"


def _rows(task: str, source: Path) -> list[Any]:
    with opening(task, source) as file:
        try:
            return items_of(mapping(load(file.read(), FastLoader))["files"], "files")
        except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise DataError(f"task {task}: {source} is not MACS's list of files in YAML ({reason:.200})") from error


READER = Reader(read, splits=SPLITS)
