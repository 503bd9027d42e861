"""Tux Paint's stamps: cut-out photos and drawings with captions, spoken descriptions and sounds; GPL-2.

Layout, as Debian's package `tuxpaint-stamps-default` 2022.06.04-1 has it below `/`, in folders of categories under
`usr/share/tuxpaint/stamps`:

| file | |
| --- | --- |
| `STAMP.txt` | the English caption, then lines of `LANGUAGE.utf8=CAPTION` |
| `STAMP.png` or `.svg` | the picture; the 165 that are SVG alone are left out where a picture is needed |
| `STAMP.ogg` or `.wav` | the sound the thing makes; letters and figures have their spoken name instead, left out |
| `STAMP_desc.ogg`, `STAMP_desc_LANGUAGE.ogg` (or `.wav`) | the caption, read aloud in English or another language |

`kind` chooses the task:

| kind | sample |
| --- | --- |
| `caption` | picture -> English caption |
| `sound` | sound -> English caption of what makes it |
| `speech` | spoken description -> the caption in its language, where there is one |
| `spoken_language` | spoken description -> the language's name, of the six with most clips |

`spoken_language` takes the 889 stamps that are described in all six languages, so that every answer is equally
frequent and the things spoken of give nothing away. Each language was read by one person, or nearly so (the package's
changelog names them): the task is as much to tell six speakers and microphones apart, and no split can change that.

Stamps that share a file name, or a caption in any spoken language, make one group, and a group lies in one split:
many recordings were copied from stamp to stamp.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from equipoise.data.readers.splits import check_split, split_of, words
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError
from equipoise.packages import TUXPAINT, fetched

STAMPS = Path("usr/share/tuxpaint/stamps")
SOUND = (".ogg", ".wav")
LANGUAGES = {
    "be": "Belarusian",
    "bg": "Bulgarian",
    "ca": "Catalan",
    "da": "Danish",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "lt": "Lithuanian",
    "ml": "Malayalam",
    "nl": "Dutch",
    "pt_BR": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
}
MOST_SPOKEN = ("bg", "ca", "es", "fr", "ro", "ru")


@dataclass(frozen=True)
class Stamp:
    """One stamp: its path without ending, its captions by language, and the files that go with it."""

    id: str
    captions: dict[str, str]
    picture: Path | None
    sound: Path | None
    spoken: dict[str, Path]


# What a kind makes of one stamp: (suffix of the sample's id, file, question, answer), for each sample.
Parts = Iterator[tuple[str, Path, str, str]]


def _caption(stamp: Stamp) -> Parts:
    if stamp.picture is not None:
        yield "", stamp.picture, "Describe the picture.", stamp.captions["en"]


def _sound(stamp: Stamp) -> Parts:
    if stamp.sound is not None and not stamp.id.startswith("symbols/"):
        yield "", stamp.sound, "What makes this sound?", stamp.captions["en"]


def _speech(stamp: Stamp) -> Parts:
    for language, clip in stamp.spoken.items():
        if language in stamp.captions:
            yield f"/{language}", clip, f"What is said? It is {LANGUAGES[language]}.", stamp.captions[language]


def _spoken_language(stamp: Stamp) -> Parts:
    if all(language in stamp.spoken for language in MOST_SPOKEN):
        for language in MOST_SPOKEN:
            yield f"/{language}", stamp.spoken[language], "Which language is spoken?", LANGUAGES[language]


KINDS: dict[str, Callable[[Stamp], Parts]] = {
    "caption": _caption,
    "sound": _sound,
    "speech": _speech,
    "spoken_language": _spoken_language,
}


def read(task: str, split: str, path: Path | None = None, kind: str = "caption") -> list[Sample]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `usr/`; the fetched copy when None.
        kind: `caption`, `sound`, `speech` or `spoken_language`.

    Raises:
        DataError: an unknown split or kind, data that was not fetched, or files that are not Tux Paint's.
    """
    check_split(task, "tuxpaint", split)
    if kind not in KINDS:
        raise DataError(f"task {task}: tuxpaint has no kind {kind!r}; allowed: {', '.join(KINDS)}")
    root = (path if path is not None else fetched(TUXPAINT)) / STAMPS
    stamps = [
        _stamp(task, root, Path(folder), name, set(names))
        for folder, _, names in sorted(os.walk(root))
        for name in sorted(names)
        if name.endswith(".txt")
    ]
    if not stamps:
        raise DataError(f"task {task}: {root} holds no stamps")
    groups = _groups(stamps)
    return [
        Sample(
            id=f"{stamp.id}{suffix}",
            task=task,
            turns=(Turn("user", question), Turn("assistant", answer)),
            images=(file,) if kind == "caption" else (),
            audios=() if kind == "caption" else (file,),
            references=(answer,),
        )
        for stamp in stamps
        if split_of(groups[stamp.id]) == split
        for suffix, file, question, answer in KINDS[kind](stamp)
    ]


def _stamp(task: str, root: Path, folder: Path, caption_file: str, beside: set[str]) -> Stamp:
    """Read one stamp's captions, and find its other files among those beside it."""
    source = folder / caption_file
    try:
        english, *others = source.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, OSError | UnicodeDecodeError) else "it is empty"
        raise DataError(f"task {task}: {source} holds no caption ({reason})") from error
    captions = {"en": english.strip()}
    for line in others:
        language, separator, caption = line.partition(".utf8=")
        if separator and caption.strip():
            captions[language] = caption.strip()

    def existing(suffix: str, *endings: str) -> Path | None:
        names = (f"{source.stem}{suffix}{ending}" for ending in endings)
        return next((folder / name for name in names if name in beside), None)

    clips = {language: existing("_desc" if language == "en" else f"_desc_{language}", *SOUND) for language in LANGUAGES}
    return Stamp(
        id=source.relative_to(root).with_suffix("").as_posix(),
        captions=captions,
        picture=existing("", ".png"),
        sound=existing("", *SOUND),
        spoken={language: clip for language, clip in clips.items() if clip is not None},
    )


def _groups(stamps: list[Stamp]) -> dict[str, str]:
    """Name the group of each stamp: the first of those that it shares a name or a caption with, over any number of
    steps."""
    parents = {stamp.id: stamp.id for stamp in stamps}

    def first(stamp: str) -> str:
        while parents[stamp] != stamp:
            stamp = parents[stamp]
        return stamp

    owners: dict[tuple[str, str], str] = {}
    for stamp in stamps:
        captions = {language: words(text) for language, text in stamp.captions.items() if language in LANGUAGES}
        for key in [("", stamp.id.rpartition("/")[2]), *captions.items()]:
            one, other = sorted((first(stamp.id), first(owners.setdefault(key, stamp.id))))
            parents[other] = one
    return {stamp: first(stamp) for stamp in parents}
