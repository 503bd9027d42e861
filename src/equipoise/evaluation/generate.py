"""Answers by greedy generation, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample

Media = tuple[tuple[Path, ...], tuple[Path, ...]]


def generate(
    model: PreTrainedModel | PeftModel,
    collator: Collator,
    samples: Sequence[Sample],
    max_new_tokens: int,
    batch_size: int = 16,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Answer each sample's last question.

    Args:
        model: in eval mode, with `generate`.
        advance: called with the number of samples that each batch finished.

    Returns:
        One text a sample, without special tokens.
    """
    tokenizer = collator.processor.tokenizer
    device = next(model.parameters()).device
    answers: list[str] = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        inputs = {name: value.to(device) for name, value in collator.prompts(batch).items()}
        with torch.inference_mode():
            answered = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)  # type: ignore[operator]
        width = inputs["input_ids"].shape[1]
        answers += tokenizer.batch_decode(answered[:, width:], skip_special_tokens=True)
        advance(len(batch))
    return [answer.strip() for answer in answers]


def with_shuffled_inputs(samples: Sequence[Sample]) -> list[Sample]:
    """Give each sample another sample's images and audio: questions and answers stay, the evidence is wrong.

    Among samples with as many images and clips, the distinct ones are rotated by half their number, so none keeps its
    own where there are two or more. A model that scores as well on these has learned nothing from what it is shown.
    """
    kinds: dict[tuple[int, int], dict[Media, None]] = {}
    for sample in samples:
        kinds.setdefault((len(sample.images), len(sample.audios)), {})[sample.images, sample.audios] = None
    other: dict[Media, Media] = {}
    for distinct in map(list, kinds.values()):
        half = len(distinct) // 2
        other |= zip(distinct, [*distinct[half:], *distinct[:half]], strict=True)
    swapped = (other[sample.images, sample.audios] for sample in samples)
    return [replace(sample, images=images, audios=audios) for sample, (images, audios) in zip(samples, swapped)]
