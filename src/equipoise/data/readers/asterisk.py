"""Asterisk's core sounds: telephone prompts at 8 kHz, spoken by Allison Smith, with transcripts; CC-BY-SA-3.0.

Layout, as Debian's packages `asterisk-core-sounds-en` and `asterisk-core-sounds-en-wav` 1.6.1-1 have it below `/`:
`usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz`, lines of `NAME: TRANSCRIPT`, and
`usr/share/asterisk/sounds/en_US_f_Allison/NAME.wav`. Prompts that are no plain speech (tones, silence, the names of
signs), whose transcripts hold brackets, are left out, and so is the one that has a transcript and no clip. A prompt's
split is drawn from its words, so that prompts which say the same are in one split:

| split | prompts |
| --- | --- |
| train | 415 |
| validation | 49 |
| test | 76 |
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from equipoise.data.readers.files import inside, opening
from equipoise.data.readers.reader import Flaw, Reader, check_split, samples_of, text_of
from equipoise.data.readers.splits import SPLITS, split_of, words
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError
from equipoise.packages import ASTERISK, fetched
from equipoise.texts import shown

TRANSCRIPTS = Path("usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
SOUNDS = Path("usr/share/asterisk/sounds/en_US_f_Allison")
UNSPOKEN = "pls-try-call-later"
QUESTION = "What is said?"
LARGEST = 10_000_000  # bytes of transcripts; theirs are 40,000


def read(task: str, split: str, path: Path | None = None) -> Iterator[Sample | Flaw]:
    """Read one split: transcription.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `usr/`; the fetched copy when None.

    Raises:
        DataError: an unknown split, data that was not fetched, or transcripts that are not Asterisk's.
    """
    check_split(task, "asterisk", split, SPLITS)
    root = path if path is not None else fetched(ASTERISK)
    source = root / TRANSCRIPTS
    try:
        with opening(task, source) as file:
            with gzip.open(file) as unpacked:
                text = unpacked.read(LARGEST + 1)
            if len(text) > LARGEST:
                raise DataError(f"task {task}: {source} holds more than {LARGEST:,} bytes")
            lines = text.decode("utf-8").splitlines()
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"task {task}: {source} cannot be read ({error})") from error

    def make(line: str) -> list[Sample]:
        name, separator, transcript = line.partition(":")
        if not separator:
            raise ValueError(f"found {shown(line)}; expected NAME: TRANSCRIPT")
        transcript = text_of(transcript, "transcript")
        if name == UNSPOKEN or re.search(r"[\[<(]", transcript) or split_of(words(transcript)) != split:
            return []
        clip = inside(root / SOUNDS, f"{name}.wav", "audio")
        return [Sample(name, task, exchange(QUESTION, transcript), audios=(clip,), references=(transcript,))]

    prompts = ((line.partition(":")[0], line) for line in lines if line.strip() and not line.startswith(";"))
    yield from samples_of(prompts, make, source)


READER = Reader(read, SPLITS, needs_path=False)
