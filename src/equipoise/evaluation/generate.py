"""Answers by greedy generation, a batch at a time, by transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample

Media = tuple[tuple[Path, ...], tuple[Path, ...]]


class Engine(Protocol):
    """Something that answers questions."""

    def answer(self, samples: Sequence[Sample], max_new_tokens: int) -> list[str]:
        """Answer each sample's last question: one text a sample, without special tokens."""


class TransformersEngine:
    """Answers by the model's own `generate`.

    Args:
        model: in eval mode.
        collator: pads prompts on the left.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, collator: Collator):
        self.model = model
        self.collator = collator

    def answer(self, samples: Sequence[Sample], max_new_tokens: int) -> list[str]:
        """As `Engine`; the samples are one batch."""
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in self.collator.prompts(samples).items()}
        with torch.inference_mode():
            answered = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)  # type: ignore[operator]
        width = inputs["input_ids"].shape[1]
        tokenizer = self.collator.processor.tokenizer
        return [text.strip() for text in tokenizer.batch_decode(answered[:, width:], skip_special_tokens=True)]


def with_shuffled_inputs(samples: Sequence[Sample]) -> Sequence[Sample]:
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
    return _Shuffled(samples, other)


class _Shuffled(Sequence[Sample]):
    """Samples with other media, put together when they are asked for."""

    def __init__(self, samples: Sequence[Sample], other: Mapping[Media, Media]):
        self._samples = samples
        self._other = other

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        sample = self._samples[index]
        images, audios = self._other[sample.images, sample.audios]
        return replace(sample, images=images, audios=audios)
