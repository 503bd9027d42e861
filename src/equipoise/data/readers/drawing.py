"""What readers share that draw their own pictures of real words and numbers: a canvas, a font that fits, one cache.

Pictures are 256 pixels a side and drawn to be legible at 128, the side of the embedded tower. The font is the one that
Pillow carries, so that they look alike on every machine.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

from equipoise.data.readers.files import note
from equipoise.packages import build_once, cache_folder

T = TypeVar("T")
SIDE = 256
INK = (32, 32, 32)


def drawn(name: str, pictures: Mapping[str, T], draw: Callable[[T], Image.Image]) -> Path:
    """The folder that holds KEY.png for each picture, drawn if it was not there.

    Args:
        name: what the folder is called; a digest of the pictures and of the code that draws them is added.
        pictures: key to what `draw` draws; its `repr` must tell it all.
    """
    digest = hashlib.sha256(repr(dict(pictures)).encode())
    for code in (__file__, inspect.getfile(draw)):
        digest.update(Path(code).read_bytes())

    def build(folder: Path) -> None:
        for key, picture in pictures.items():
            draw(picture).save(folder / f"{key}.png")

    return note(build_once(cache_folder() / "drawn" / f"{name}-{digest.hexdigest()[:12]}", build))


def canvas(paper: tuple[int, int, int] = (255, 255, 255)) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture, and what draws on it."""
    image = Image.new("RGB", (SIDE, SIDE), paper)
    return image, ImageDraw.Draw(image)


def fitting(text: str, width: float, largest: int) -> ImageFont.FreeTypeFont:
    """The largest font, up to a size, in which a line of text is at most so wide."""
    for size in range(largest, 1, -1):
        if font(size).getlength(text) <= width:
            return font(size)
    return font(1)


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont), "Pillow's wheels carry FreeType"
    return loaded
