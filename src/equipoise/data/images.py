"""Image files as RGB images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def load_image(
    path: Path, enough: int | None = None, formats: Sequence[str] | None = None, largest: int | None = None
) -> Image.Image:
    """Read an image as RGB, what is transparent in it as white.

    Args:
        path: what Pillow can read.
        enough: pixels a side; a larger JPEG may then come out smaller, though no smaller than this: it is decoded at a
            fraction of its size, which takes a fraction of the time.
        formats: Pillow's names of those that are read; all of them by default.
        largest: pixels of the largest image that is decoded; by default what Pillow allows.

    Raises:
        OSError, ValueError, Image.DecompressionBombError: a file that is missing, no image, cut short, or of more than
            `largest` or 179 million pixels (twice Pillow's `MAX_IMAGE_PIXELS`).
    """
    with Image.open(path, formats=None if formats is None else list(formats)) as image:
        pixels = image.width * image.height
        if largest is not None and pixels > largest:
            raise ValueError(f"it has {pixels:,} pixels; allowed are {largest:,}")
        if enough is not None:
            image.draft("RGB", (enough, enough))
        return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Drawings in black on nothing would otherwise be black on black."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
