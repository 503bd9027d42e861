"""Texts, images and audio to tensors, by the model's own processor.

Most processors take a batch in one form, whether or not all of its rows have images or audio; the few that do not have
a function each here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

Batch = dict[str, torch.Tensor]


@dataclass
class Row:
    """One conversation: its rendered text, and what its placeholders stand for, in their order."""

    text: str
    images: list[Image.Image] = field(default_factory=list)
    audios: list[np.ndarray] = field(default_factory=list)


def encode(processor: Any, rows: Sequence[Row], side: str) -> Batch:
    """Encode a batch.

    Args:
        processor: a transformers processor with a tokenizer.
        side: which one is padded, "left" or "right".

    Returns:
        `input_ids` and `attention_mask` [B, T], and what the processor makes of images and audio.
    """
    options = {"padding": True, "padding_side": side, "add_special_tokens": False, "return_tensors": "pt"}
    encoded = ENCODERS.get(type(processor).__name__, _in_one_form)(processor, rows, options)
    return {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor)}


def placeholder(processor: Any, kind: str) -> str | None:
    """What stands for an image ("image") or a clip ("audio") in a text; None where the processor takes none."""
    token = getattr(processor, f"{kind}_token", None)
    if token is None and kind == "image" and type(processor).__name__ == "IdeficsProcessor":
        return "<image>"
    return str(token) if token else None


def _in_one_form(processor: Any, rows: Sequence[Row], options: dict[str, Any]) -> dict[str, Any]:
    media: dict[str, Any] = {}
    if any(row.images for row in rows):
        media["images"] = [row.images for row in rows]
    if any(row.audios for row in rows):
        media["audio"] = [clip for row in rows for clip in row.audios]
        media["sampling_rate"] = processor.feature_extractor.sampling_rate
    return processor(text=[row.text for row in rows], **media, **options)


def _blip2(processor: Any, rows: Sequence[Row], options: dict[str, Any]) -> dict[str, Any]:
    """BLIP-2's processor would give every row an image's tokens; its model insists on an image, a blank one does."""
    tokens = str(processor.image_token) * processor.num_query_tokens
    encoded = processor.tokenizer([tokens * len(row.images) + row.text for row in rows], **options)
    images = [image for row in rows for image in row.images]
    pixels = processor.image_processor(images or [Image.new("RGB", (8, 8))], return_tensors="pt")
    return {**encoded, **pixels}


def _paligemma(processor: Any, rows: Sequence[Row], options: dict[str, Any]) -> dict[str, Any]:
    """PaliGemma's processor ends a text with a line break and spoils one without an image."""
    tokens = processor.image_token * processor.image_seq_length
    encoded = processor.tokenizer([row.text.replace(processor.image_token, tokens) for row in rows], **options)
    images = [image for row in rows for image in row.images]
    return {**encoded, **(processor.image_processor(images, return_tensors="pt") if images else {})}


def _idefics(processor: Any, rows: Sequence[Row], options: dict[str, Any]) -> dict[str, Any]:
    """Idefics 1 takes each prompt as a list of texts and images, and puts <s> in front itself."""
    prompts = []
    for row in rows:
        text = row.text.removeprefix(processor.tokenizer.bos_token)
        first, *rest = text.split(placeholder(processor, "image"))
        prompt: list[Any] = [first]
        for image, text in zip(row.images, rest, strict=True):
            prompt += [image, text]
        prompts.append(prompt)
    return processor(text=prompts, add_end_of_utterance_token=False, **options)


def _voxtral(processor: Any, rows: Sequence[Row], options: dict[str, Any]) -> dict[str, Any]:
    """Voxtral's processor takes audio as files inside a conversation alone; here a clip is so many windows of 30 s."""
    extractor = processor.feature_extractor
    windows, texts = [], []
    for row in rows:
        text, *rest = row.text.split(processor.audio_token)
        for clip, piece in zip(row.audios, rest, strict=True):
            length = -(-len(clip) // extractor.n_samples) * extractor.n_samples
            features = extractor(
                clip, sampling_rate=extractor.sampling_rate, padding="max_length", max_length=length,
                truncation=False, return_tensors="pt",
            )["input_features"]  # fmt: skip
            cut = features[0].reshape(extractor.feature_size, -1, extractor.nb_max_frames).transpose(0, 1)
            windows.append(cut)
            # The encoder's convolution halves the frames, the projector takes four of them for a token.
            text += processor.audio_token * (cut.shape[0] * extractor.nb_max_frames // 8) + piece
        texts.append(text)
    encoded = processor.tokenizer(texts, **options)
    return {**encoded, **({"input_features": torch.cat(windows)} if windows else {})}


ENCODERS: dict[str, Callable[[Any, Sequence[Row], dict[str, Any]], dict[str, Any]]] = {
    "Blip2Processor": _blip2,
    "PaliGemmaProcessor": _paligemma,
    "IdeficsProcessor": _idefics,
    "VoxtralProcessor": _voxtral,
}
