"""Qwen2-Audio: a Whisper encoder, a linear projector, Qwen."""

from __future__ import annotations

from dataclasses import replace

from equipoise.models.families.generic import GENERIC

QWEN2_AUDIO = replace(
    GENERIC,
    model_types=("qwen2_audio",),
    loss_from_logits=True,  # its loss is a mean over each micro-batch
    source="transformers' model file",
)
