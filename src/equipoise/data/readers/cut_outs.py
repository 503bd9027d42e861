"""Scenes of two cut-outs on one canvas, so that one knows to the pixel where each is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from equipoise.data.images import opened
from equipoise.data.readers.drawing import SIDE, canvas
from equipoise.data.readers.files import note
from equipoise.data.readers.reader import Unusable
from equipoise.data.sample import Box

PAPERS = ((255, 255, 255), (255, 247, 224), (226, 240, 255), (230, 248, 228), (250, 230, 238))
SMALLEST, LARGEST = 56, 112  # pixels of the longer side
MARGIN = 8
FAINT = 64  # of 255: what is more transparent is shadow, and not the thing

Edges = tuple[int, int, int, int]


@dataclass(frozen=True)
class CutOut:
    """A picture on a transparent ground.

    Attributes:
        path: its file.
        changed: when, in nanoseconds, so that a scene of another picture is another scene.
        edges: where in it the thing is, in pixels.
    """

    path: Path
    changed: int
    edges: Edges


@dataclass(frozen=True)
class Scene:
    """Cut-outs, and where on the canvas the edges of each come to lie, in pixels; the first is asked for."""

    paper: tuple[int, int, int]
    things: tuple[tuple[CutOut, Edges], ...]

    @property
    def box(self) -> Box:
        """Where the first thing is."""
        left, top, right, bottom = self.things[0][1]
        return left / SIDE, top / SIDE, right / SIDE, bottom / SIDE


def cut_out(path: Path) -> CutOut:
    """Look at a picture.

    Raises:
        Unusable: it cannot be read, or all of it is transparent.
    """
    try:
        with opened(note(path)) as image:
            edges = image.convert("RGBA").getchannel("A").point(lambda alpha: 255 * (alpha >= FAINT)).getbbox()
        changed = path.stat().st_mtime_ns
    except Exception as error:  # decoders raise what they like on broken bytes
        raise Unusable(f"image cannot be read ({getattr(error, 'strerror', None) or error})", path) from error
    if edges is None:
        raise Unusable("image shows nothing: all of it is transparent", path)
    return CutOut(path, changed, edges)


def scene(things: tuple[CutOut, ...], name: str) -> Scene:
    """Place one or two cut-outs beside or above one another, as a hash of the scene's name has it."""
    chance = hashlib.sha256(name.encode()).digest()
    halves = [(0, 0, SIDE // 2, SIDE), (SIDE // 2, 0, SIDE, SIDE)]
    if chance[1] % 2:
        halves = [(top, left, bottom, right) for left, top, right, bottom in halves]
    if chance[2] % 2:
        halves.reverse()
    placed = (
        (thing, _placed(thing.edges, half, chance[3 + 3 * number :]))
        for number, (thing, half) in enumerate(zip(things, halves, strict=False))
    )
    return Scene(PAPERS[chance[0] % len(PAPERS)], tuple(placed))


def _placed(edges: Edges, half: Edges, chance: bytes) -> Edges:
    """The edges of a thing, scaled and moved to some place in one half of the canvas."""
    width, height = edges[2] - edges[0], edges[3] - edges[1]
    scale = (SMALLEST + (LARGEST - SMALLEST) * chance[0] / 255) / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    left = half[0] + MARGIN + round((half[2] - half[0] - 2 * MARGIN - width) * chance[1] / 255)
    top = half[1] + MARGIN + round((half[3] - half[1] - 2 * MARGIN - height) * chance[2] / 255)
    return left, top, left + width, top + height


def draw_scene(placed: Scene) -> Image.Image:
    """Paste the cut-outs."""
    image, _ = canvas(placed.paper)
    for thing, (left, top, right, bottom) in placed.things:
        with opened(thing.path) as picture:
            pasted = picture.convert("RGBA").crop(thing.edges).resize((right - left, bottom - top))
        image.paste(pasted, (left, top), pasted)
    return image
