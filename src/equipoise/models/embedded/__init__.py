"""The embedded stacks: small multimodal models assembled from real pretrained weights that ordinary packages carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from equipoise.models.embedded.audio import smol_audio
from equipoise.models.embedded.audio_vision import smol_audio_vision
from equipoise.models.embedded.flamingo import smol_flamingo
from equipoise.models.embedded.language import AUDIO_TOKEN, IMAGE_TOKEN
from equipoise.models.embedded.vision import CHAT_TEMPLATE, PROJECTOR, smol_qformer, smol_vlm

__all__ = [
    "AUDIO_TOKEN",
    "CHAT_TEMPLATE",
    "EMBEDDED",
    "IMAGE_TOKEN",
    "PROJECTOR",
    "smol_audio",
    "smol_audio_vision",
    "smol_flamingo",
    "smol_qformer",
    "smol_vlm",
]

# The names a recipe may give in `model.path` instead of a folder or a hub id.
EMBEDDED: dict[str, Callable[[], Path]] = {
    "embedded:smol-vlm": lambda: smol_vlm(aligned=True),
    "embedded:smol-vlm-unaligned": lambda: smol_vlm(aligned=False),
    "embedded:smol-qformer": smol_qformer,
    "embedded:smol-flamingo": smol_flamingo,
    "embedded:smol-audio": smol_audio,
    "embedded:smol-audio-base": lambda: smol_audio(base=True),
    "embedded:smol-audio-vision": smol_audio_vision,
}
