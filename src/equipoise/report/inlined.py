"""Images and clips inside the page, made small; what cannot be there is named in its place.

A picture is shrunk, a clip is cut short and given in mono, both are `data:` addresses; together they take no more than
a bound, so that the file stays light enough to send. The same files give the same bytes.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import soundfile
import soxr
from PIL import features

from equipoise.data.images import load_image
from equipoise.data.media import cannot
from equipoise.report.markup import safe, tag

SIDE = 320
"""Pixels of a picture's longer side."""

SECONDS, RATE = 10, 16_000
"""The length of a clip, and its samples a second."""

LIMIT = 6_000_000
"""Letters that all pictures and clips of a page take at most; about as much as plotly's script."""

NAME = 60  # most letters of a file's name beside a picture


@dataclass
class Inliner:
    """Turns files into elements as long as there is room.

    Attributes:
        room: letters that are left.
        left_out: how many pictures and clips did not fit.
        unreadable: how many could not be read.
    """

    room: int = LIMIT
    left_out: int = 0
    unreadable: int = 0
    _known: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def picture(self, path: str, words: str) -> str:
        """An image element; `words` are what a screen reader says."""
        address, note = self._address("image", path)
        if not address:
            return tag("p", note, class_="missing")
        # Opened or not, a picture that is not on the screen yet costs the reader nothing.
        return f'<img src="{address}" alt="{safe(words)}" title="{safe(_name(path))}" loading="lazy" decoding="async">'

    def clip(self, path: str, words: str) -> str:
        """An audio element with its controls, and how much of a longer clip it is."""
        address, note = self._address("audio", path)
        if not address:
            return tag("p", note, class_="missing")
        player = f'<audio controls preload="none" aria-label="{safe(words)}" src="{address}"></audio>'
        return player + (tag("p", note, class_="missing") if note else "")

    def _address(self, kind: str, path: str) -> tuple[str, str]:
        """A `data:` address and what has to be said; no address where there is none to give."""
        found = self._known.get((kind, path))
        if found is None:
            try:
                # A name may stand for something that never ends, or that waits for a writer.
                if not Path(path).is_file():
                    raise FileNotFoundError(2, "No such file")
                found = _picture(Path(path)) if kind == "image" else _clip(Path(path))
            except Exception as error:  # decoders raise what they like on broken bytes
                found = "", f"{_name(path)}: {cannot(kind, Path(path), error)}"
            self._known[kind, path] = found
        address = found[0]
        if not address:
            self.unreadable += 1
        elif len(address) > self.room:
            self.left_out += 1
            return "", f"{_name(path)}: left out, the page is full"
        self.room -= len(address)
        return found


def _picture(path: Path) -> tuple[str, str]:
    image = load_image(path, SIDE)
    image.thumbnail((SIDE, SIDE))
    kind = "webp" if features.check("webp") else "jpeg"
    file = io.BytesIO()
    image.save(file, kind, quality=80)
    return _as_data(f"image/{kind}", file), ""


def _clip(path: Path) -> tuple[str, str]:
    """MP3, which every browser plays; as WAV where libsndfile cannot write it. (It gives Ogg files random numbers.)"""
    with soundfile.SoundFile(path) as source:
        rate, whole = source.samplerate, len(source) / source.samplerate
        channels = source.read(SECONDS * rate, dtype="float32", always_2d=True)
    if not len(channels):
        raise ValueError("it holds no sample")
    mono = channels[:, 0] if rate == RATE else soxr.resample(channels[:, 0], rate, RATE)
    kind, format = ("mpeg", "MP3") if "MP3" in soundfile.available_formats() else ("wav", "WAV")
    file = io.BytesIO()
    soundfile.write(file, mono, RATE, format=format)
    note = f"The first {SECONDS} of {whole:,.1f} seconds." if whole > SECONDS else ""
    return _as_data(f"audio/{kind}", file), note


def _as_data(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _name(path: str) -> str:
    """A file's name, the end of a long one; names come from files too."""
    name = path.rpartition("/")[2]
    return name if len(name) <= NAME else f"…{name[-NAME:]}"
