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
| `category` | picture -> the name of its top folder, one of the 16 that the question lists |
| `box` | two pictures on one canvas, and the caption of one -> where it is, exactly |
| `sound` | sound -> English caption of what makes it |
| `speech` | spoken description -> the caption in its language, where there is one |
| `spoken_language` | spoken description -> the language's name, of the six with most clips |

`spoken_language` takes the 889 stamps that are described in all six languages, so that every answer is equally
frequent and the things spoken of give nothing away. Each language was read by one person, or nearly so (the package's
changelog names them): the task is as much to tell six speakers and microphones apart, and no split can change that.

Stamps that share a file name, or a caption in any spoken language, make one group, and a group lies in one split:
many recordings were copied from stamp to stamp. Samples a split:

| kind | train | validation | test |
| --- | --- | --- | --- |
| `caption`, `category`, `box` | 643 | 71 | 71 |
| `sound` | 92 | 4 | 11 |
| `speech` | 5,977 | 650 | 677 |
| `spoken_language` | 4,344 | 498 | 492 |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from equipoise.data.readers.boxes import box_sample
from equipoise.data.readers.cut_outs import CutOut, cut_out, draw_scene, scene
from equipoise.data.readers.drawing import drawn
from equipoise.data.readers.files import inside, note, opening
from equipoise.data.readers.reader import Flaw, Reader, Unusable, check_option, check_split, samples_of
from equipoise.data.readers.splits import SPLITS, split_of, words
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError
from equipoise.packages import TUXPAINT, fetched

STAMPS = Path("usr/share/tuxpaint/stamps")
SOUND = (".ogg", ".wav")
CATEGORIES = (
    "animals", "clothes", "food", "hobbies", "household", "medical", "military", "naturalforces", "people", "plants",
    "seasonal", "space", "sports", "symbols", "town", "vehicles",
)  # fmt: skip
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


def _category(stamp: Stamp) -> Parts:
    category = stamp.id.partition("/")[0]
    if stamp.picture is not None and category in CATEGORIES:
        yield "", stamp.picture, f"Which of these is it: {', '.join(CATEGORIES)}?", category


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
    "category": _category,
    "sound": _sound,
    "speech": _speech,
    "spoken_language": _spoken_language,
}


def read(task: str, split: str, path: Path | None = None, kind: str = "caption") -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `usr/`; the fetched copy when None.
        kind: `caption`, `category`, `box`, `sound`, `speech` or `spoken_language`.

    Raises:
        DataError: an unknown split or kind, data that was not fetched, or a folder without stamps.
    """
    check_split(task, "tuxpaint", split, SPLITS)
    check_option(task, "tuxpaint", "kind", kind, (*KINDS, "box"))
    root = (path if path is not None else fetched(TUXPAINT)) / STAMPS
    stamps: list[Stamp] = []
    for folder, _, names in sorted(os.walk(note(root))):
        for name in sorted(names):
            if name.endswith(".txt"):
                try:
                    stamps.append(_stamp(task, root, note(Path(folder)) / name, set(names)))
                except Unusable as error:
                    yield Flaw(_id(root, error.path), str(error.path), str(error))
    if not stamps:
        raise DataError(f"task {task}: {root} holds no stamps")
    groups = _groups(stamps)
    stamps = [stamp for stamp in stamps if split_of(groups[stamp.id]) == split]
    if kind == "box":
        yield from _boxes(task, root, split, stamps)
        return

    def make(stamp: Stamp) -> Iterator[Sample]:
        for suffix, file, question, answer in KINDS[kind](stamp):
            media = "image" if file == stamp.picture else "audio"
            found = (_inside(root, file, media),)
            yield Sample(
                id=f"{stamp.id}{suffix}",
                task=task,
                turns=exchange(question, answer),
                images=found if media == "image" else (),
                audios=found if media == "audio" else (),
                references=(answer,),
            )

    yield from samples_of(((stamp.id, stamp) for stamp in stamps), make, root)


READER = Reader(read, SPLITS, needs_path=False)


def _boxes(task: str, root: Path, split: str, stamps: list[Stamp]) -> Iterator[Sample | Flaw]:
    """Each stamp with a picture, beside one whose caption differs: the next from half-way round the split's stamps."""
    found: list[tuple[Stamp, CutOut]] = []
    for stamp in stamps:
        if stamp.picture is not None:
            try:
                found.append((stamp, cut_out(_inside(root, stamp.picture, "image"))))
            except Unusable as error:
                yield Flaw(stamp.id, str(error.path), str(error))
    scenes = {}
    for place, (stamp, thing) in enumerate(found):
        others = (found[(place + len(found) // 2 + step) % len(found)] for step in range(len(found)))
        other = next(
            (beside for one, beside in others if words(one.captions["en"]) != words(stamp.captions["en"])), None
        )
        scenes[str(place)] = scene((thing,) if other is None else (thing, other), stamp.id)
    images = drawn(f"tuxpaint-{split}", scenes, draw_scene)
    for place, (stamp, _) in enumerate(found):
        image = images / f"{place}.png"
        yield box_sample(stamp.id, task, image, stamp.captions["en"], scenes[str(place)].box)


def _inside(root: Path, file: Path, media: str) -> Path:
    return inside(root, file.relative_to(root).as_posix(), media)


def _id(root: Path, caption_file: Path) -> str:
    return caption_file.relative_to(root).with_suffix("").as_posix()


def _stamp(task: str, root: Path, source: Path, beside: set[str]) -> Stamp:
    """Read one stamp's captions, and find its other files among those beside it.

    Raises:
        Unusable: its caption file holds none.
    """
    try:
        with opening(task, source) as file:
            lines = file.read().decode("utf-8").splitlines() or [""]
    except UnicodeDecodeError as error:
        raise Unusable(f"it holds no caption ({error})", source) from error
    captions = {"en": lines[0].strip()}
    if not captions["en"]:
        raise Unusable("it holds no caption (its first line is empty)", source)
    for line in lines[1:]:
        language, separator, caption = line.partition(".utf8=")
        if separator and caption.strip():
            captions[language] = caption.strip()

    def existing(suffix: str, *endings: str) -> Path | None:
        names = (f"{source.stem}{suffix}{ending}" for ending in endings)
        return next((source.parent / name for name in names if name in beside), None)

    clips = {language: existing("_desc" if language == "en" else f"_desc_{language}", *SOUND) for language in LANGUAGES}
    return Stamp(
        id=_id(root, source),
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
