"""Questions about where in an image something is, in RefCOCO's words, for data whose boxes we know to the pixel."""

from __future__ import annotations

from pathlib import Path

from equipoise.data.readers.refcoco import BBOX_PROMPT
from equipoise.data.sample import Box, Sample, exchange


def box_sample(id: str, task: str, image: Path, phrase: str, box: Box) -> Sample:
    """Phrase -> box: the answer has two decimals, the reference enough for any image."""
    question = BBOX_PROMPT.format(phrase.removesuffix("."))
    return Sample(id, task, exchange(question, box_text(box, 2)), (image,), (box_text(box, 6),), box=box)


def box_text(box: Box, decimals: int) -> str:
    """A box as questions and answers show it: [0.12, 0.30, 0.55, 0.90]."""
    return f"[{', '.join(f'{edge:.{decimals}f}' for edge in box)}]"
