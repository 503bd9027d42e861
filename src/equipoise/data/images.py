"""Image files as RGB images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from equipoise.opening import open_plain

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What an image may be. Pillow reads forty formats more, among them some that are programs."""

RATIO = 200
"""Most that the longer side may have of the shorter one: processors that bring the shorter side to a size would make
an image of any length."""


def load_image(
    path: Path, enough: int | None = None, formats: Sequence[str] = FORMATS, largest: int | None = None
) -> Image.Image:
    """Read an image as RGB, what is transparent in it as white; of a moving one the first picture.

    Pixels come as they are stored: a camera's note on how it was held (EXIF) turns nothing, for boxes are of the stored
    image. 16 bits a channel become 8.

    Args:
        enough: pixels a side; a larger JPEG may then come out smaller, though no smaller than this: it is decoded at a
            fraction of its size, which takes a fraction of the time.
        formats: Pillow's names of those that are read.
        largest: pixels of the largest image that is decoded; by default 89 million (Pillow's `MAX_IMAGE_PIXELS`).

    Raises:
        OSError, ValueError, Image.DecompressionBombError: a file that is missing, no image, cut short, or of more than
            `largest` pixels or `RATIO`. Decoders may raise more on broken bytes.
    """
    with opened(path, formats, largest) as image:
        if enough is not None:
            image.draft("RGB", (enough, enough))
        if image.has_transparency_data:
            return _on_white(image)
        return _from_16_bits(image) if image.mode.startswith("I") else image.convert("RGB")


@contextmanager
def opened(path: Path, formats: Sequence[str] = FORMATS, largest: int | None = None) -> Iterator[Image.Image]:
    """The file as Pillow opens it, not yet decoded; arguments and errors are those of `load_image`."""
    with open_plain(path) as file, Image.open(file, formats=list(formats)) as image:
        _check_size(image, largest if largest is not None else Image.MAX_IMAGE_PIXELS)
        yield image


def _check_size(image: Image.Image, largest: int | None) -> None:
    width, height = image.size
    if largest is not None and width * height > largest:
        raise ValueError(f"it has {width * height:,} pixels; allowed are {largest:,}")
    if max(width, height) > RATIO * min(width, height):
        raise ValueError(f"it has {width:,} x {height:,} pixels; one side may be {RATIO} times the other")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Grey values of two bytes, of which Pillow's own conversion keeps the dark end."""
    grey = np.asarray(image).astype(np.int64)
    return Image.fromarray((grey.clip(0, 65_535) >> 8).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Drawings in black on nothing would otherwise be black on black."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
