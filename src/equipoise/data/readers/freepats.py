"""FreePats: instruments for a sampler, 128 patches of General MIDI with 448 recordings; GPL-2+ with an exception.

Layout, as Debian's package `freepats` 20060219-4 has it below `/`, in `usr/share/midi/freepats`:
`Tone_000/PROGRAM_NAME.pat`, 72 instruments by General MIDI's number, and `Drum_000/KEY_NAME.pat`, 56 drums
(`gus_patch` reads them). The samples of a task are notes of 1.5 seconds (less where the sound ends before), played
once from a patch: of each recording the note that was recorded, and those 4, 8 and 12 semitones from it that the
patch plays with it. Drums are played as they were recorded. Notes are kept as WAV files in `media/` of the cache.

| `kind` | sample |
| --- | --- |
| `instrument` | note -> the instrument's family, one of the ten that the question lists |
| `group` | note -> the larger group of families: `keys`, `guitar`, `strings`, `wind` or `drums` |
| `pitch` | note of a piano's range -> `low` (below 180 Hz), `middle` or `high` (from 620 Hz) |

Families are General MIDI's with at least four patches, and the drums; of a patch `instrument` takes at most 12 notes,
evenly from low to high, so that families have about equally many. `group` is the same without the organs, which sound
like winds and are keys. `pitch` leaves out drums, percussion and noises;
its bounds divide the notes into thirds. Instruments have their registers: who knows a bass knows that it is low.

**Splits.** All notes of a patch lie in one split, the same one for all kinds: instruments of the test split were never
heard in training, of whatever pitch. In each family the patches, in the order of a hash of their names, are dealt to
the splits, so that each of the ten families is in all three. That makes `instrument` hard: a family's test is one or
two instruments (14 for drums), known by what they have in common with two to five others. The split of a patch depends
on the others of its family.

| kind | train | validation | test |
| --- | --- | --- | --- |
| `instrument` | 394 | 110 | 163 |
| `group` | 370 | 98 | 152 |
| `pitch` | 516 | 120 | 243 |
"""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equipoise.data.readers.files import inside, note, opening
from equipoise.data.readers.gus_patch import PatchSample, play, read_patch
from equipoise.data.readers.reader import Flaw, Reader, Unusable, check_option, check_split, samples_of
from equipoise.data.readers.splits import SPLITS, dealt
from equipoise.data.readers.table import media_file
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError
from equipoise.packages import FREEPATS, fetched

PATCHES = Path("usr/share/midi/freepats")
FAMILIES = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects",
)  # fmt: skip
DRUMS = "drums"
#: Families with at least four patches: two to learn from, one to validate and one to test.
LISTED = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "brass", "reed", "pipe", "drums"
)  # fmt: skip
UNPITCHED = (DRUMS, "percussive", "sound effects")
GROUPS = {
    "piano": "keys", "chromatic percussion": "keys", "guitar": "guitar", "bass": "guitar", "strings": "strings",
    "brass": "wind", "reed": "wind", "pipe": "wind", DRUMS: "drums",
}  # fmt: skip
LARGEST = 64_000_000  # bytes of a patch; theirs are 2.4 million
SECONDS, RATE = 1.5, 16_000
STEPS = (-12, -8, -4, 0, 4, 8, 12)  # semitones from the recorded note
MOST = 12  # notes of a patch, for `instrument`
MIDDLE = (180.0, 620.0)  # Hz
PIANO = (27.5, 4_186.1)  # Hz, A0 to C8
QUESTIONS = {
    "instrument": f"Which of these instruments is it: {', '.join(LISTED)}?",
    "group": f"Which of these groups of instruments is it from: {', '.join(dict.fromkeys(GROUPS.values()))}?",
    "pitch": "How high is this note: low, middle or high?",
}
KINDS = tuple(QUESTIONS)


@dataclass(frozen=True)
class Patch:
    """A file, and the family of its instrument."""

    path: Path
    family: str

    @property
    def id(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


def read(task: str, split: str, path: Path | None = None, kind: str = "instrument") -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `usr/`; the fetched copy when None.
        kind: `instrument`, `group` or `pitch`.

    Raises:
        DataError: an unknown split or kind, data that was not fetched, a folder without patches, or a cache that
            cannot be written.
    """
    check_split(task, "freepats", split, SPLITS)
    check_option(task, "freepats", "kind", kind, KINDS)
    root = (path if path is not None else fetched(FREEPATS)) / PATCHES
    patches = _patches(root)
    if not patches:
        raise DataError(f"task {task}: {root} holds no patches")
    splits = dealt({patch.id: patch.family for patch in patches})
    chosen = [patch for patch in patches if splits[patch.id] == split]
    chosen = [patch for patch in chosen if _is_asked(patch, kind)]
    noted = False

    def make(patch: Patch) -> Iterator[Sample]:
        nonlocal noted
        for name, frequency, recording in _notes(task, root, patch, kind):
            answer = _answer(patch, kind, frequency)
            try:
                sound = play(recording, frequency, SECONDS, RATE)
            except ValueError as error:
                raise Unusable(f"{name}: {error}", patch.path) from error
            clip = media_file(root, {"bytes": _wav(sound), "path": "note.wav"}, "audio")
            if not noted:
                noted = bool(note(clip))  # one stands for all: an index must not outlive the cache folder
            yield Sample(
                f"{patch.id}/{name}", task, exchange(QUESTIONS[kind], answer), audios=(clip,), references=(answer,)
            )

    yield from samples_of(((patch.id, patch) for patch in chosen), make, root)


READER = Reader(read, SPLITS, needs_path=False)


def height(frequency: float) -> str:
    """What a note of so many Hz is called."""
    return "low" if frequency < MIDDLE[0] else "middle" if frequency < MIDDLE[1] else "high"


def _patches(root: Path) -> list[Patch]:
    found = []
    for folder in ("Tone_000", "Drum_000"):
        for path in sorted(note(root / folder).glob("*.pat")):
            number = re.match(r"[0-9]{3}_", path.name)
            program = int(path.name[:3]) if number else 128
            if program < 128:
                found.append(Patch(path, DRUMS if folder == "Drum_000" else FAMILIES[program // 8]))
    return found


def _answer(patch: Patch, kind: str, frequency: float) -> str:
    if kind == "pitch":
        return height(frequency)
    return patch.family if kind == "instrument" else GROUPS[patch.family]


def _is_asked(patch: Patch, kind: str) -> bool:
    if kind == "pitch":
        return _has_pitch(patch)
    return patch.family in (LISTED if kind == "instrument" else GROUPS)


def _has_pitch(patch: Patch) -> bool:
    return patch.family not in UNPITCHED


def _notes(task: str, root: Path, patch: Patch, kind: str) -> list[tuple[str, float, PatchSample]]:
    """The notes to play of a patch: each with its name (recording and semitones), frequency in Hz, and recording."""
    file = inside(root, patch.path.relative_to(root).as_posix(), "patch")
    with opening(task, file) as opened:
        content = opened.read(LARGEST + 1)
    try:
        if len(content) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        recordings = read_patch(content)
    except ValueError as error:
        raise Unusable(str(error), patch.path) from error
    found = []
    for number, recording in enumerate(recordings):
        for step in STEPS if _has_pitch(patch) else (0,):
            frequency = recording.root * 2 ** (step / 12)
            # The recorded note is played even where the patch gives it to another recording.
            if step == 0 or recording.lowest <= frequency <= recording.highest:
                found.append((f"{number}{step:+}", frequency, recording))
    if kind == "pitch":
        return [one for one in found if PIANO[0] <= one[1] <= PIANO[1]]
    found.sort(key=lambda one: one[1])
    return [found[index * len(found) // MOST] for index in range(MOST)] if len(found) > MOST else found


def _wav(sound: np.ndarray) -> bytes:
    """16 bits, one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(RATE)
        opened.writeframes(np.round(sound * 32_767).astype("<i2").tobytes())
    return file.getvalue()
