"""From samples to the tensors a model trains or generates on.

Labels are -100 everywhere but on the assistant's answers. Training pads on the right, generation on the left. Samples
with and without images or audio may share a batch. Where a text itself holds what stands for an image or a clip
(`<image>`), a space breaks it up (`< image>`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import ProcessorMixin

from equipoise.data.encoding import Batch, Row, encode, placeholder
from equipoise.data.media import load_audios, load_images
from equipoise.data.sample import Sample
from equipoise.errors import DataError

IGNORED = -100
LONGEST = 50_000_000  # letters that a chat template may make of one conversation


class Collator:
    """Batches samples for one processor; usable as a Trainer's `data_collator`.

    Args:
        processor: a processor with a chat template and a tokenizer.
        max_length: longest sequence in tokens, images and audio included; None for no bound.
        cut: longer ones lose their end; otherwise they are an error.
        prefix_attention: for models whose prompt attends to itself in both directions (PaliGemma): all before the last
            answer is the prompt, the last answer alone is supervised, and `token_type_ids` tell them apart.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        max_length: int | None = None,
        prefix_attention: bool = False,
        cut: bool = False,
    ):
        if not getattr(processor, "chat_template", None):
            raise DataError("the processor has no chat template; set one before training")
        self.processor = processor
        self.max_length = max_length
        self.prefix_attention = prefix_attention
        self.cut = cut
        begun = processor.tokenizer("a")["input_ids"]
        self._bos = processor.tokenizer.bos_token if begun[:1] == [processor.tokenizer.bos_token_id] else None
        self._stops = ends_answers(processor)
        if not self._stops and not processor.tokenizer.eos_token:
            raise DataError(
                "nothing ends an answer: the tokenizer has no eos_token, and the chat template writes no special token"
            )
        self._placeholders = [token for kind in ("image", "audio") if (token := placeholder(processor, kind))]

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Collate whole conversations.

        Returns:
            `input_ids`, `attention_mask`, `labels` [B, T], and what the processor makes of images and audio.
        """
        texts, answers = zip(*(self._render(sample) for sample in samples), strict=True)
        batch = self._encode(samples, texts, side="right")
        labels = torch.full_like(batch["input_ids"], IGNORED)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        for row, sample in enumerate(samples):
            self._label(sample, batch["input_ids"][row, : lengths[row]], labels[row], texts[row], answers[row])
        batch["labels"] = labels
        if self.max_length is not None and labels.shape[1] > self.max_length:
            batch = self._bounded(samples, batch, lengths, self.max_length)
        if self.prefix_attention:
            batch["token_type_ids"] = (batch["labels"] != IGNORED).long()
        return batch

    def prompts(self, samples: Sequence[Sample]) -> Batch:
        """Collate the conversations up to the last answer, for `generate`: padded on the left, no labels."""
        batch = self._encode(samples, [self.prompt_text(sample) for sample in samples], side="left")
        if self.prefix_attention:
            batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        return batch

    def prompt_text(self, sample: Sample) -> str:
        """The conversation up to the last answer as text, a placeholder for each image and clip."""
        return self._begun(render(self.processor, self._messages(sample)[:-1], prompt=True))

    def _bounded(self, samples: Sequence[Sample], batch: Batch, lengths: Sequence[int], most: int) -> Batch:
        """Cut the batch to `most` tokens; images and audio precede the answers and so are left whole."""
        shape = batch["labels"].shape
        kept = {name: value[:, :most] if value.shape[:2] == shape else value for name, value in batch.items()}
        for row, sample in enumerate(samples):
            silent = not (kept["labels"][row] != IGNORED).any()
            if lengths[row] > most and (silent or not self.cut):
                allowed = "cut to it, nothing of an answer is left" if self.cut else "train.too_long: cut shortens it"
                raise DataError(
                    f"task {sample.task}: sample {sample.id} has {lengths[row]} tokens; "
                    f"max_length allows {most} ({allowed})"
                )
        return kept

    def _begun(self, text: str) -> str:
        """Put the token that begins a text in front, where the tokenizer would and the template did not."""
        return text if not self._bos or text.startswith(self._bos) else self._bos + text

    def _check(self, sample: Sample) -> None:
        for kind in ("image", "audio"):
            part = {"image": "image_processor", "audio": "feature_extractor"}[kind]
            if getattr(sample, f"{kind}s") and not hasattr(self.processor, part):
                raise DataError(
                    f"task {sample.task}: sample {sample.id} has an {kind}; {type(self.processor).__name__} takes none"
                )

    def _render(self, sample: Sample) -> tuple[str, list[tuple[int, int]]]:
        """Return the conversation's text, and where in it each answer begins and ends."""
        messages = self._messages(sample)
        text = self._begun(render(self.processor, messages).rstrip())
        spans = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                before = self._begun(render(self.processor, messages[:index], prompt=True))
                until = self._begun(render(self.processor, messages[: index + 1]).rstrip())
                spans.append((len(before), len(until)))
        if not self._stops:
            text += self.processor.tokenizer.eos_token
            spans[-1] = (spans[-1][0], len(text))
        # An earlier answer, being of the prompt, would see the question that follows it.
        return text, spans[-1:] if self.prefix_attention else spans

    def _messages(self, sample: Sample) -> list[dict]:
        """The conversation as chat templates read it, with images and audio before the first user turn's text."""
        messages = []
        media = [{"type": "image"} for _ in sample.images] + [{"type": "audio"} for _ in sample.audios]
        for turn in sample.turns:
            text = turn.text
            for token in self._placeholders:  # somebody writes about markup; it must not ask for an image
                text = text.replace(token, f"{token[0]} {token[1:]}")
            content: list[dict] = [{"type": "text", "text": text}]
            if turn.role == "user":
                content, media = media + content, []
            messages.append({"role": turn.role, "content": content})
        return messages

    def _encode(self, samples: Sequence[Sample], texts: Sequence[str], side: str) -> Batch:
        rate = getattr(getattr(self.processor, "feature_extractor", None), "sampling_rate", 0)
        rows = []
        for sample, text in zip(samples, texts, strict=True):
            self._check(sample)
            rows.append(Row(text, load_images(sample), load_audios(sample, rate)))
        try:
            return encode(self.processor, rows, side)
        except Exception as error:  # each processor has its own idea of what is an image, a clip or a text
            ids = ", ".join(f"{sample.task} {sample.id}" for sample in samples)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"the model's processor cannot take these samples together or one of them: {ids:.300} ({reason:.300})"
            ) from error

    def _label(
        self, sample: Sample, ids: torch.Tensor, labels: torch.Tensor, text: str, answers: list[tuple[int, int]]
    ) -> None:
        """Uncover the answers, counting back from the end: what precedes may have grown by image and audio tokens."""
        encoded = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens, offsets = encoded["input_ids"], encoded["offset_mapping"]
        for start, stop in answers:
            inside = [number for number, (begin, end) in enumerate(offsets) if begin < stop and end > start]
            if not inside or offsets[inside[0]][0] < start or offsets[inside[-1]][1] > stop:
                raise DataError(
                    f"task {sample.task}: sample {sample.id}: an answer's tokens are not found in the conversation's; "
                    "the chat template must render each turn alike whatever follows, and an answer may not begin with "
                    "white space, which merges with what precedes"
                )
            shift = len(ids) - len(tokens)
            expected = torch.tensor(tokens[inside[0] : inside[-1] + 1])
            place = slice(shift + inside[0], shift + inside[-1] + 1)
            if not torch.equal(ids[place], expected):
                raise DataError(
                    f"task {sample.task}: sample {sample.id}: the processor tokenises an answer otherwise than its "
                    "tokenizer does; images and audio must precede the first answer"
                )
            labels[place] = expected


def render(processor: ProcessorMixin, messages: list[dict], prompt: bool = False) -> str:
    """The conversation as text; by the tokenizer, for some processors open files when they see images or audio.

    Raises:
        DataError: the chat template fails, or never ends what it says.
    """
    try:
        text = processor.tokenizer.apply_chat_template(
            messages, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # a program of the checkpoint's, which transformers runs in a sandbox of Jinja's
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the model's chat template cannot be used ({type(error).__name__}: {reason:.300})") from error
    if not isinstance(text, str) or len(text) > LONGEST:
        raise DataError(f"the model's chat template makes more than {LONGEST:,} letters of a conversation")
    return text


def ends_answers(processor: ProcessorMixin) -> bool:
    """Whether the processor's chat template ends an answer with a special token, from which a model learns to stop."""
    answer = "answer"
    turns = [{"role": role, "content": [{"type": "text", "text": answer}]} for role in ("user", "assistant")]
    _, found, tail = render(processor, turns).rpartition(answer)
    if not found:
        raise DataError("the model's chat template leaves out what the assistant says; one that keeps it is needed")
    return any(token in tail for token in processor.tokenizer.all_special_tokens)
