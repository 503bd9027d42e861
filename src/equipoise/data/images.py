"""Image files as RGB images."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def load_image(path: Path, enough: int | None = None) -> Image.Image:
    """Read an image as RGB, what is transparent in it as white.

    Args:
        path: what Pillow can read.
        enough: pixels a side; a larger JPEG may then come out smaller, though no smaller than this: it is decoded at a
            fraction of its size, which takes a fraction of the time.

    Raises:
        OSError, ValueError, Image.DecompressionBombError: a file that is missing, no image, cut short, or of more than
            179 million pixels (twice Pillow's `MAX_IMAGE_PIXELS`).
    """
    with Image.open(path) as image:
        if enough is not None:
            image.draft("RGB", (enough, enough))
        return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Drawings in black on nothing would otherwise be black on black."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
