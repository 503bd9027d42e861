"""Qwen2-Audio: a Whisper encoder, a linear projector, Qwen."""

from __future__ import annotations

from dataclasses import replace

from equipoise.models.families.generic import GENERIC

QWEN2_AUDIO = replace(
    GENERIC,
    model_types=("qwen2_audio",),
    loss_from_logits=True,  # it takes the step's number of tokens and forgets it: micro-batches would be summed
    source="transformers' model file",
)
