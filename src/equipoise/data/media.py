"""A sample's images and clips, opened; what cannot be is one line with task, sample and path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from PIL import Image

from equipoise.data.audio import load_audio
from equipoise.data.images import load_image
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError

T = TypeVar("T")
AT_ONCE = 256


def load_images(sample: Sample) -> list[Image.Image]:
    """Open the sample's images as RGB.

    Raises:
        DataError: an image that is missing or cannot be decoded.
    """
    return [_opened(sample, "image", path, load_image) for path in sample.images]


def load_audios(sample: Sample, sampling_rate: int) -> list[np.ndarray]:
    """Read the sample's audio clips, mono at the given rate.

    Raises:
        DataError: a clip that is missing, empty or cannot be decoded.
    """
    return [_opened(sample, "audio", path, lambda file: load_audio(file, sampling_rate)) for path in sample.audios]


def _opened(sample: Sample, kind: str, path: Path, load: Callable[[Path], T]) -> T:
    try:
        return load(path)
    except Exception as error:  # decoders raise what they like on broken bytes: RuntimeError, MemoryError, struct.error
        raise DataError(Flaw(sample.id, str(path), cannot(kind, path, error)).line(sample.task)) from error


def checked(rows: Iterable[Sample | Flaw]) -> Iterator[Sample | Flaw]:
    """Open every image and clip once, a few at a time; a sample with one that cannot be opened becomes a flaw."""
    rows = iter(rows)
    reason_of = lru_cache(maxsize=4_096)(_reason)  # questions about one image stand together

    def check(row: Sample | Flaw) -> Sample | Flaw:
        if isinstance(row, Flaw):
            return row
        for kind, paths in (("image", row.images), ("audio", row.audios)):
            for path in paths:
                reason = reason_of(kind, path)
                if reason is not None:
                    return Flaw(row.id, str(path), reason)
        return row

    with ThreadPoolExecutor() as pool:
        while batch := list(islice(rows, AT_ONCE)):
            yield from pool.map(check, batch)


def _reason(kind: str, path: Path) -> str | None:
    try:
        load_image(path) if kind == "image" else load_audio(path)
    except Exception as error:
        return cannot(kind, path, error)
    return None


def cannot(kind: str, path: Path, error: Exception) -> str:
    """Why a file cannot be read. Pillow's and libsndfile's messages name the file again; ours has named it."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split(":")[0]
    reason = reason or type(error).__name__
    if isinstance(error, Image.UnidentifiedImageError):
        reason = "no image that Pillow knows"
    if isinstance(error, soundfile.LibsndfileError):
        reason = error.error_string if path.is_file() else "No such file"  # which it calls a system error
    return f"{kind} cannot be read ({' '.join(reason.split())})"
