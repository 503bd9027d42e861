"""Sonic Pi's samples: 165 short sounds to make music of, FLAC, named by their kind; CC0-1.0, by the README beside them.

Layout, as Debian's package `sonic-pi-samples` 3.2.2~repack-8 has it below `/`:
`usr/share/sonic-pi/samples/PREFIX_NAME.flac`. The prefix is the kind; the question lists the five with enough samples:

| kind | prefixes | samples |
| --- | --- | --- |
| `drum` | `bd`, `drum`, `sn` | 37 |
| `tabla` | `tabla` | 26 |
| `electronic` | `elec` | 25 |
| `loop` | `loop` | 17 |
| `glitch` | `glitch`, `mehackit` | 19 |

Left out are the kinds with fewer, and those that are no kind of sound: `ambi`, `bass`, `guit`, `misc`, `perc`, `vinyl`.

**Splits.** Sounds whose names agree in their first two words, without figures, are one recording or a series of one
(`tabla_ghe1` to `tabla_ghe8`, `loop_amen` and `loop_amen_full`), and lie in one split. In each kind these series, in
the order of a hash of their names, are dealt to the splits. What no split can part: all tablas are one pair of drums,
and the electronic sounds are one author's. It is a small set; a sound of the test split is worth 3 %.

| train | validation | test |
| --- | --- | --- |
| 76 | 19 | 29 |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from equipoise.data.readers.files import inside, note
from equipoise.data.readers.reader import Flaw, Reader, check_split, samples_of
from equipoise.data.readers.splits import SPLITS, dealt
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError
from equipoise.packages import SONIC_PI, fetched

SOUNDS = Path("usr/share/sonic-pi/samples")
KINDS = {
    "bd": "drum", "drum": "drum", "sn": "drum", "tabla": "tabla", "elec": "electronic", "loop": "loop",
    "glitch": "glitch", "mehackit": "glitch",
}  # fmt: skip
LISTED = tuple(dict.fromkeys(KINDS.values()))
QUESTION = f"Which of these kinds of sound is it: {', '.join(LISTED)}?"


def read(task: str, split: str, path: Path | None = None) -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `usr/`; the fetched copy when None.

    Raises:
        DataError: an unknown split, data that was not fetched, or a folder without such sounds.
    """
    check_split(task, "sonic_pi", split, SPLITS)
    root = (path if path is not None else fetched(SONIC_PI)) / SOUNDS
    kinds = {name.stem: KINDS.get(_prefix(name.stem)) for name in sorted(note(root).glob("*.flac"))}
    sounds = {name: kind for name, kind in kinds.items() if kind is not None}
    if not sounds:
        raise DataError(f"task {task}: {root} holds no sounds of Sonic Pi's")
    splits = dealt({series(name): kind for name, kind in sounds.items()})

    def make(name: str) -> Sample:
        clip = inside(root, f"{name}.flac", "audio")
        return Sample(name, task, exchange(QUESTION, sounds[name]), audios=(clip,), references=(sounds[name],))

    yield from samples_of(((name, name) for name in sounds if splits[series(name)] == split), make, root)


READER = Reader(read, SPLITS, needs_path=False)


def series(name: str) -> str:
    """What sounds share that are one recording, or several of one thing."""
    first, second = (*name.split("_"), "")[:2]
    return f"{first}_{re.sub('[0-9]+$', '', second)}"


def _prefix(name: str) -> str:
    return name.partition("_")[0]
