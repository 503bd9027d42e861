"""Asterisk's core sounds: telephone prompts at 8 kHz, spoken by Allison Smith, with transcripts; CC-BY-SA-3.0.

Layout, as Debian's packages `asterisk-core-sounds-en` and `asterisk-core-sounds-en-wav` 1.6.1-1 have it below `/`:
`usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz`, lines of `NAME: TRANSCRIPT`, and
`usr/share/asterisk/sounds/en_US_f_Allison/NAME.wav`. Prompts that are no plain speech (tones, silence, the names of
signs), whose transcripts hold brackets, are left out. A prompt's split is drawn from its words, so that prompts which
say the same are in one split.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from equipoise.data.readers.splits import check_split, split_of, words
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError
from equipoise.packages import ASTERISK, fetched

TRANSCRIPTS = Path("usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
SOUNDS = Path("usr/share/asterisk/sounds/en_US_f_Allison")
QUESTION = "What is said?"


def read(task: str, split: str, path: Path | None = None) -> list[Sample]:
    """Read one split: transcription.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `usr/`; the fetched copy when None.

    Raises:
        DataError: an unknown split, data that was not fetched, or files that are not Asterisk's.
    """
    check_split(task, "asterisk", split)
    root = path if path is not None else fetched(ASTERISK)
    source = root / TRANSCRIPTS
    try:
        lines = gzip.decompress(source.read_bytes()).decode("utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"task {task}: {source} cannot be read ({error})") from error
    samples = []
    for line in lines:
        name, separator, transcript = line.partition(": ")
        transcript = transcript.strip()
        clip = root / SOUNDS / f"{name}.wav"
        spoken = separator and not line.startswith(";") and not re.search(r"[\[<(]", transcript)
        if spoken and clip.is_file() and split_of(words(transcript)) == split:
            samples.append(
                Sample(
                    id=name,
                    task=task,
                    turns=(Turn("user", QUESTION), Turn("assistant", transcript)),
                    audios=(clip,),
                    references=(transcript,),
                )
            )
    return samples
