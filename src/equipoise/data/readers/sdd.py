"""The Song Describer Dataset (Manco et al. 2023): what people wrote about two minutes of a song.

Layout, as its data card and Zenodo's record 10072001 have it:

```
song_describer.csv            caption_id, track_id, caption, is_valid_subset, familiarity, artist_id, album_id, path,
                              duration: one caption a row; `path` is that of the whole song, "21/6921.mp3"
audio/21/6921.2min.mp3        audio.zip, unpacked; `audio/audio/21/...` where it was unpacked into `audio/`
```

The owners publish it for evaluation, undivided. CoMMIT trains on it and does not say on what part: here the artist
decides by the hash of its id (80% of artists train, 10% validation, 10% test). Captions outside the owners' validated
subset are read too.

In `train` each caption is a sample to learn, under its `caption_id`; in the other splits each track is one, under its
`track_id`, whose answer is the first caption. The references are all captions of the track. The prompt is that of
SALMONN's own music captioning, for CoMMIT does not say how it asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from equipoise.data.readers.files import csv_rows, inside
from equipoise.data.readers.reader import Flaw, Reader, check_split, samples_of, text_of
from equipoise.data.readers.splits import SPLITS, split_of
from equipoise.data.sample import Sample, exchange

COLUMNS = (
    "caption_id", "track_id", "caption", "is_valid_subset", "familiarity", "artist_id", "album_id", "path", "duration",
)  # fmt: skip
PROMPT = "Listen to this music clip and describe the music."
Row = dict[str, str]


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    check_split(task, "sdd", split, SPLITS)
    source = path / "song_describer.csv"
    nested = path / "audio" / "audio"
    audio = nested if nested.is_dir() else path / "audio"
    tracks: dict[str, list[Row]] = {}
    for _, row in csv_rows(task, source, COLUMNS):
        if split_of(str(row["artist_id"])) == split:
            tracks.setdefault(row["track_id"], []).append(row)

    def captions() -> Iterator[tuple[str, tuple[str, Row, list[Row]]]]:
        for track, rows in tracks.items():
            for row in rows if split == "train" else rows[:1]:
                id = str(row["caption_id"] if split == "train" else track)  # a row cut short has None
                yield id, (id, row, rows)

    def make(item: tuple[str, Row, list[Row]]) -> Sample:
        id, row, rows = item
        name = text_of(row["path"], "path").removesuffix(".mp3") + ".2min.mp3"
        return Sample(
            id=id,
            task=task,
            turns=exchange(PROMPT, text_of(row["caption"], "caption")),
            audios=(inside(audio, name, "audio"),),
            references=tuple(text_of(other["caption"], "caption") for other in rows),
        )

    yield from samples_of(captions(), make, source)


READER = Reader(read, splits=SPLITS)
