"""Images and clips inside the page, made small; what cannot be there is named in its place.

A picture is shrunk, a clip is cut short and given in mono, both are `data:` addresses; together they take no more than
a bound, so that the file stays light enough to send. The same files give the same bytes. Of a file that is not shown
the page says nothing but its name: neither that it exists nor why it could not be read.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import soundfile
import soxr
from PIL import features

from equipoise.data.images import load_image
from equipoise.report.allowed import allowed_file
from equipoise.report.markup import safe, tag

SIDE = 320
"""Pixels of a picture's longer side."""

SECONDS, RATE = 10, 16_000
"""The length of a clip, and its samples a second."""

LIMIT = 6_000_000
"""Letters that all pictures and clips of a page take at most; about as much as plotly's script."""

LEAST = 4_000
"""Letters of room below which nothing more is decoded: hardly anything would fit."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What a picture may be. Pillow reads forty formats more, among them some that are programs."""

PIXELS, SAMPLES = 40_000_000, 20_000_000
"""The largest picture, and the longest piece of a clip in samples of all channels, that is decoded."""

NAME = 60  # most letters of a file's name beside a picture
HIDDEN = "is not shown: it cannot be read, or lies outside the folders that the run's recipe names"


@dataclass
class Inliner:
    """Turns files into elements as long as there is room.

    Attributes:
        room: letters that are left.
        left_out: how many pictures and clips did not fit.
        hidden: how many are absent, cannot be read, or lie outside the folders that they may come from.
    """

    room: int = LIMIT
    left_out: int = 0
    hidden: int = 0

    def picture(self, path: str, words: str, roots: Sequence[Path]) -> str:
        """An image element.

        Args:
            words: what a screen reader says.
            roots: the folders that it may come from, resolved.
        """
        address, note = self._address("image", path, roots)
        if not address:
            return tag("p", note, class_="missing")
        # Opened or not, a picture that is not on the screen yet costs the reader nothing.
        return f'<img src="{address}" alt="{safe(words)}" title="{safe(_name(path))}" loading="lazy" decoding="async">'

    def clip(self, path: str, words: str, roots: Sequence[Path]) -> str:
        """An audio element with its controls, and how much of a longer clip it is; arguments as for a picture."""
        address, note = self._address("audio", path, roots)
        if not address:
            return tag("p", note, class_="missing")
        player = f'<audio controls preload="none" aria-label="{safe(words)}" src="{address}"></audio>'
        return player + (tag("p", note, class_="missing") if note else "")

    def _address(self, kind: str, path: str, roots: Sequence[Path]) -> tuple[str, str]:
        """A `data:` address and what has to be said; no address where there is none to give."""
        if self.room < LEAST:
            return self._leave_out(path)
        file = allowed_file(path, roots)
        address, note = _read(kind, file) if file is not None else ("", "")
        if not address:
            self.hidden += 1
            return "", f"{_name(path)} {HIDDEN}"
        if len(address) > self.room:
            return self._leave_out(path)
        self.room -= len(address)
        return address, note

    def _leave_out(self, path: str) -> tuple[str, str]:
        self.left_out += 1
        return "", f"{_name(path)}: left out, the page is full"


def _read(kind: str, file: Path) -> tuple[str, str]:
    """The address and what has to be said; both empty where the file cannot be read."""
    try:
        stat = file.stat()
    except OSError:
        return "", ""
    return _decoded(kind, file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _decoded(kind: str, file: Path, size: int, changed: int) -> tuple[str, str]:
    """Each version of a file is decoded once: a watched page is drawn anew with every step."""
    try:
        return _picture(file) if kind == "image" else _clip(file)
    except Exception:  # decoders raise what they like on broken bytes
        return "", ""


def _picture(path: Path) -> tuple[str, str]:
    image = load_image(path, SIDE, FORMATS, PIXELS)
    image.thumbnail((SIDE, SIDE))
    kind = "webp" if features.check("webp") else "jpeg"
    file = io.BytesIO()
    image.save(file, kind, quality=80)
    return _as_data(f"image/{kind}", file), ""


def _clip(path: Path) -> tuple[str, str]:
    """MP3, which every browser plays; as WAV where libsndfile cannot write it. (It gives Ogg files random numbers.)"""
    with soundfile.SoundFile(path) as source:
        rate, whole = source.samplerate, len(source) / source.samplerate
        frames = min(len(source), SECONDS * rate)
        if frames * source.channels > SAMPLES:
            raise ValueError(f"{SECONDS} seconds of it are {frames * source.channels:,} samples")
        channels = source.read(frames, dtype="float32", always_2d=True)
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
