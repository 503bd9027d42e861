"""From samples to the tensors a model trains or generates on.

Labels are -100 everywhere but on the assistant's answers. Training pads on the right, generation on the left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from equipoise.data.sample import Sample
from equipoise.errors import DataError

IGNORED = -100


class Collator:
    """Batches samples for one processor; usable as a Trainer's `data_collator`.

    Args:
        processor: a processor with a chat template and a tokenizer.
        max_length: longest sequence in tokens, images included; None for no bound.
    """

    def __init__(self, processor: ProcessorMixin, max_length: int | None = None):
        if not getattr(processor, "chat_template", None):
            raise DataError("the processor has no chat template; set one before training")
        self.processor = processor
        self.max_length = max_length

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Collate whole conversations.

        Returns:
            `input_ids`, `attention_mask`, `labels` [B, T], and what the processor makes of the images.
        """
        texts, answers = zip(*(self._render(sample) for sample in samples), strict=True)
        batch = self._process(samples, list(texts), side="right")
        labels = torch.full_like(batch["input_ids"], IGNORED)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        for row, (sample, segments) in enumerate(zip(samples, answers, strict=True)):
            self._label(sample, batch["input_ids"][row], labels[row], lengths[row], segments)
        if self.max_length is not None and labels.shape[1] > self.max_length:
            longest = max(range(len(samples)), key=lengths.__getitem__)
            raise DataError(
                f"task {samples[longest].task}: sample {samples[longest].id} has {lengths[longest]} tokens; "
                f"max_length allows {self.max_length}"
            )
        batch["labels"] = labels
        return dict(batch)

    def prompts(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Collate the conversations up to the last answer, for `generate`: padded on the left, no labels."""
        texts = [self._template(_messages(sample)[:-1], prompt=True) for sample in samples]
        return dict(self._process(samples, texts, side="left"))

    def _template(self, messages: list[dict], prompt: bool) -> str:
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)

    def _check(self, sample: Sample) -> None:
        token = getattr(self.processor, "image_token", None)
        if token and any(token in turn.text for turn in sample.turns):
            raise DataError(
                f"task {sample.task}: sample {sample.id}: its text holds {token!r}, which stands for an image"
            )

    def _render(self, sample: Sample) -> tuple[str, list[tuple[str, bool]]]:
        """Return the conversation's text, and that text cut at the answers as (text, is an answer)."""
        messages = _messages(sample)
        text = self._template(messages, prompt=False).rstrip()
        segments, position = [], 0
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            start = len(self._template(messages[:index], prompt=True))
            stop = len(self._template(messages[: index + 1], prompt=False).rstrip())
            segments += [(text[position:start], False), (text[start:stop], True)]
            position = stop
        return text, segments

    def _process(self, samples: Sequence[Sample], texts: list[str], side: str) -> BatchFeature:
        for sample in samples:
            self._check(sample)
        images = [image for sample in samples for image in load_images(sample)]
        return self.processor(
            text=texts,
            images=images or None,
            padding=True,
            padding_side=side,
            add_special_tokens=False,
            return_tensors="pt",
        )

    def _label(
        self, sample: Sample, ids: torch.Tensor, labels: torch.Tensor, length: int, segments: list[tuple[str, bool]]
    ) -> None:
        """Uncover the answers, counting back from the end: what precedes may have grown by image tokens."""
        tokenizer = self.processor.tokenizer
        stop = length
        for text, is_answer in reversed(segments[1:]):
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
            start = stop - len(tokens)
            if start < 0 or ids[start:stop].tolist() != tokens:
                raise DataError(
                    f"task {sample.task}: sample {sample.id}: the answer's tokens are not found in the conversation's; "
                    "the chat template must render each turn alike whatever follows, and an answer may not begin with "
                    "white space, which merges with what precedes"
                )
            if is_answer:
                labels[start:stop] = ids[start:stop]
            stop = start


def _messages(sample: Sample) -> list[dict]:
    """The conversation as chat templates read it, with the images before the first user turn's text."""
    messages, images = [], [{"type": "image"} for _ in sample.images]
    for turn in sample.turns:
        content: list[dict] = [{"type": "text", "text": turn.text}]
        if turn.role == "user":
            content, images = images + content, []
        messages.append({"role": turn.role, "content": content})
    return messages


def load_images(sample: Sample) -> list[Image.Image]:
    """Open the sample's images as RGB.

    Raises:
        DataError: an image that is missing or cannot be decoded.
    """
    images = []
    for path in sample.images:
        try:
            with Image.open(path) as image:
                images.append(image.convert("RGB"))
        except (OSError, Image.DecompressionBombError, ValueError) as error:
            raise DataError(f"task {sample.task}: sample {sample.id}: image {path} cannot be read ({error})") from error
    return images
