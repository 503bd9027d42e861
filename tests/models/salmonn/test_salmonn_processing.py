"""The processor: placeholders, the release's prompts, and saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _tiny_salmonn import TOKENS, clip, processor
from transformers import AutoFeatureExtractor, AutoProcessor

from equipoise.models.salmonn import SalmonnFeatureExtractor, SalmonnProcessor

ASK = [{"type": "audio"}, {"type": "text", "text": "What do you hear?"}]


def render(messages: list[dict], prompt: bool = False) -> str:
    return processor().apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)


def test_template_of_one_turn() -> None:
    user = {"role": "user", "content": ASK}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a dog barks."}]}
    prompt = "<s> USER: <Speech><audio> </Speech> What do you hear?\nASSISTANT:"
    assert render([user], prompt=True) == prompt
    assert render([user, answer]) == prompt + " a dog barks.</s>"


def test_template_of_several_turns_without_audio() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": "hello there"},
        {"role": "user", "content": "What?"},
    ]
    expected = "<s> Be brief. USER: Say hello.\nASSISTANT: hello there</s> USER: What?\nASSISTANT:"
    assert render(messages, prompt=True) == expected


def test_tokens_are_the_releases() -> None:
    """The release tokenizes the prompt before the clip, the prompt after it and the answer each by itself."""
    made = processor()
    text = render([{"role": "user", "content": ASK}, {"role": "assistant", "content": "a dog barks."}])
    parts = ["USER: <Speech>", "</Speech> What do you hear?\nASSISTANT:", "a dog barks.</s>"]
    before, after, answer = (made.tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
    expected = [made.tokenizer.bos_token_id, *before, *[made.audio_token_id] * TOKENS, *after, *answer]
    batch = made(text=[text], audio=[clip(1)], add_special_tokens=False, return_tensors="pt")
    assert batch["input_ids"][0].tolist() == expected
    assert batch["attention_mask"].all()


def test_audio_for_some_texts_only() -> None:
    made = processor()
    texts = ["hello there", "<audio>hello", "hello <audio> and <audio>"]
    clips = [clip(1), clip(2), clip(0.3)]
    batch = made(text=texts, audio=clips, padding=True, padding_side="left", return_tensors="pt")
    assert (batch["input_ids"] == made.audio_token_id).sum(dim=1).tolist() == [0, TOKENS, 2 * TOKENS]
    assert not batch["attention_mask"][0, 0]
    for name, value in made.feature_extractor(clips, return_tensors="pt").items():
        np.testing.assert_array_equal(batch[name], value)


def test_text_alone() -> None:
    batch = processor()(
        text=["hello", "hello there"], audio=None, padding=True, padding_side="right", return_tensors="pt"
    )
    assert set(batch) == {"input_ids", "attention_mask"}
    assert not batch["attention_mask"][0, -1]


@pytest.mark.parametrize("clips", [None, [clip(1), clip(1)]])
def test_a_count_that_differs_is_refused(clips: list[np.ndarray] | None) -> None:
    with pytest.raises(ValueError, match="<audio> tokens"):
        processor()(text=["<audio> hello"], audio=clips)


def test_saving_keeps_everything(tmp_path: Path) -> None:
    made = processor(with_fbank=False, batch_invariant=False, min_seconds=0.5)
    made.num_audio_tokens = 7
    made.save_pretrained(tmp_path)
    opened = AutoProcessor.from_pretrained(tmp_path)
    assert type(opened) is SalmonnProcessor
    assert (opened.audio_token, opened.num_audio_tokens) == ("<audio>", 7)
    assert opened.chat_template == made.chat_template
    assert type(opened.feature_extractor) is SalmonnFeatureExtractor
    assert opened.feature_extractor.to_dict() == made.feature_extractor.to_dict()
    alone = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert alone.to_dict() == made.feature_extractor.to_dict()
