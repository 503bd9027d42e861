"""The model: what it hears does not depend on the batch, generation, mixed rows, gradients, saving, full size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from _tiny_salmonn import TOKENS, assert_close, clip, config, extractor, processor
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM

from equipoise.models.salmonn import SalmonnConfig, SalmonnForConditionalGeneration, SalmonnModel
from equipoise.modules.partition import find_decoder

CLIPS = [clip(0.2, 1), clip(1.23, 2), clip(2.0, 3)]
TEXTS = ["<audio> What do you hear?", "hello", "Say <audio> hello <audio>"]


def model(**options: object) -> SalmonnForConditionalGeneration:
    torch.manual_seed(3)
    return SalmonnForConditionalGeneration(config(**options)).eval()


def batch(side: str = "right") -> dict[str, torch.Tensor]:
    return dict(processor()(text=TEXTS, audio=CLIPS, padding=True, padding_side=side, return_tensors="pt"))


@torch.no_grad()
def test_a_clip_sounds_alike_in_any_batch() -> None:
    hearing = model().model.get_audio_features
    together = hearing(**extractor()(CLIPS, return_tensors="pt"))
    assert together.shape == (3, TOKENS, 32)
    for row, wave in zip(together, CLIPS, strict=True):
        assert_close(row, hearing(**extractor()([wave], return_tensors="pt"))[0])
    assert (together[0] - together[1]).abs().max() > 0.1


@torch.no_grad()
def test_the_releases_batches_leak_and_ours_can_too() -> None:
    hearing = model(batch_invariant=False).model.get_audio_features
    features = extractor(batch_invariant=False)
    together = hearing(**features(CLIPS, return_tensors="pt"))
    alone = [hearing(**features([wave], return_tensors="pt"))[0] for wave in CLIPS]
    assert_close(together[2], alone[2])
    assert (together[0] - alone[0]).abs().max() > 1e-3
    assert_close(alone[0], model().model.get_audio_features(**extractor()(CLIPS[:1], return_tensors="pt"))[0])


@torch.no_grad()
def test_both_encoders_are_heard() -> None:
    hearing = model().model.get_audio_features
    inputs = dict(extractor()([CLIPS[2]], return_tensors="pt"))
    base = hearing(**inputs)
    for name in ("input_features", "fbank"):
        changed = hearing(**{**inputs, name: inputs[name].roll(1, dims=-1)})
        assert (base - changed).abs().max() > 0.05


@torch.no_grad()
def test_bfloat16_is_near_float32() -> None:
    inputs = batch()
    logits = model()(**inputs).logits
    rounded = model().to(torch.bfloat16)(**inputs).logits
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - logits).abs().mean() < 0.05


@torch.no_grad()
def test_a_window_sees_its_own_positions_only() -> None:
    qformer = model(beats=False).model.qformer
    speech = torch.randn(1, 100, 24)
    changed = speech.clone()
    changed[:, 34] = torch.randn(24)
    moved = (qformer(speech) - qformer(changed)).abs().amax(dim=-1)[0]
    assert moved[2] > 1e-3
    assert_close(moved[[0, 1, 3, 4]], torch.zeros(4), 1e-6)


def test_tokens_of_a_clip() -> None:
    assert SalmonnConfig().num_audio_tokens == 88
    assert config(num_query_tokens=3).num_audio_tokens == 3 * TOKENS
    assert config(second_stride=0.1).num_audio_tokens == (100 - 17) // 5 + 1


@torch.no_grad()
def test_queries_of_a_window_stay_together() -> None:
    torch.manual_seed(3)
    qformer = SalmonnModel(config(beats=False, num_query_tokens=2)).eval().qformer
    speech = torch.randn(2, 100, 24)
    features = qformer(speech)
    assert features.shape == (2, 2 * TOKENS, 32)
    assert_close(features[1, 2:4], qformer(speech[1:, 17:34].repeat(1, 6, 1)[:, :100])[0, :2])


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_batched_generation_is_one_by_one(beams: int) -> None:
    speaker, made = model(), processor()
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    together = speaker.generate(**batch("left"), **options)
    width = batch("left")["input_ids"].shape[1]
    clips = iter(CLIPS)
    for row, text in zip(together, TEXTS, strict=True):
        own = [next(clips) for _ in range(text.count("<audio>"))]
        inputs = made(text=[text], audio=own or None, return_tensors="pt")
        alone = speaker.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :]
        assert row[width:].tolist() == alone.tolist()


def test_a_beam_has_all_items_of_its_row_in_order() -> None:
    ids = batch()["input_ids"]
    items = torch.arange(3)  # one clip in the first row, two in the last
    expanded, inputs = model()._expand_inputs_for_generation(2, input_ids=ids, input_features=items, fbank=10 * items)
    assert torch.equal(expanded, ids.repeat_interleave(2, dim=0))
    assert inputs["input_features"].tolist() == [0, 0, 1, 2, 1, 2]
    assert inputs["fbank"].tolist() == [0, 0, 10, 20, 10, 20]


@torch.no_grad()
def test_clips_are_heard_once_an_answer() -> None:
    speaker, calls = model(), []
    speaker.model.qformer.register_forward_hook(lambda *_: calls.append(1))
    speaker.generate(**batch("left"), max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    assert len(calls) == 1


@torch.no_grad()
def test_the_cache_changes_nothing() -> None:
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cached, plain = (model().generate(**batch("left"), use_cache=cache, **options) for cache in (True, False))
    assert cached.tolist() == plain.tolist()


@torch.no_grad()
def test_mixed_rows_are_what_they_are_alone() -> None:
    speaker, made, inputs = model(), processor(), batch()
    logits = speaker(**inputs).logits
    clips = iter(CLIPS)
    for row, text in enumerate(TEXTS):
        own = [next(clips) for _ in range(text.count("<audio>"))]
        alone = speaker(**made(text=[text], audio=own or None, return_tensors="pt")).logits[0]
        assert_close(logits[row, : len(alone)], alone, 1e-4)


@torch.no_grad()
def test_logits_to_keep_and_loss() -> None:
    speaker, inputs = model(), batch()
    every = speaker(**inputs).logits
    assert_close(speaker(**inputs, logits_to_keep=2).logits, every[:, -2:])
    positions = torch.tensor([1, 4])
    assert_close(speaker(**inputs, logits_to_keep=positions).logits, every[:, positions])
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    expected = nn.functional.cross_entropy(every[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert_close(speaker(**inputs, labels=labels).loss, expected)


def test_counts_that_differ_are_refused() -> None:
    speaker, inputs = model(), batch()
    with pytest.raises(
        ValueError, match=r"found 15 audio placeholders .* and 0 items in input_features; each item takes 5"
    ):
        speaker(input_ids=inputs["input_ids"])
    fewer = {name: inputs[name][:2] for name in ("input_features", "fbank", "fbank_mask")}
    with pytest.raises(ValueError, match=r"found 15 audio placeholders .* and 2 items"):
        speaker(input_ids=inputs["input_ids"], **fewer)
    with pytest.raises(ValueError, match="without fbank"):
        speaker(input_ids=inputs["input_ids"], input_features=inputs["input_features"])
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        speaker()


def test_frozen_encoders_build_no_graph() -> None:
    learner = model().train()
    learner.model.speech_encoder.requires_grad_(False).eval()
    learner.model.beats.requires_grad_(False).eval()
    learner.enable_input_require_grads()  # as gradient checkpointing does; it reaches Whisper's first convolution
    seen = []
    for encoder in (learner.model.speech_encoder, learner.model.beats):
        encoder.register_forward_hook(lambda _, __, output: seen.append(output.last_hidden_state.requires_grad))
    inputs = batch()
    learner(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert seen == [False, False]
    assert learner.model.qformer.query_tokens.grad.abs().max() > 0
    unfrozen = model()
    inputs = batch()
    unfrozen(**inputs, labels=inputs["input_ids"]).loss.backward()
    without = [name for name, value in unfrozen.named_parameters() if value.grad is None]
    assert without == ["model.speech_encoder.embed_positions.weight"]


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        learner = model()
        for part in learner.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        for part in learner.model.qformer.modules():
            if hasattr(part, "attention_dropout"):
                part.attention_dropout = 0.0
        learner.train()
        if checkpointing:
            learner.activation_checkpointing_enable()
        inputs = batch()
        learner(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None]))
    assert_close(*gradients)


def test_names_that_others_rely_on() -> None:
    speaker = model()
    assert speaker.get_decoder() is speaker.model.language_model is find_decoder(speaker)
    assert speaker.get_input_embeddings() is speaker.model.language_model.embed_tokens
    assert speaker.get_output_embeddings() is speaker.lm_head
    assert model(beats=False).model.beats is None


def test_resizing_reaches_embeddings_and_head() -> None:
    speaker = model()
    speaker.resize_token_embeddings(130)
    assert speaker.model.language_model.embed_tokens.weight.shape == speaker.lm_head.weight.shape == (130, 32)
    assert speaker.config.text_config.vocab_size == 130
    assert speaker(**batch()).logits.shape[-1] == 130


@pytest.mark.parametrize("beats", [True, False])
def test_saving_keeps_everything(beats: bool, tmp_path: Path) -> None:
    speaker = model(beats=beats, second_stride=0.2, second_per_window=0.4)
    speaker.save_pretrained(tmp_path)
    opened = AutoModelForMultimodalLM.from_pretrained(tmp_path).eval()
    assert type(opened) is SalmonnForConditionalGeneration
    inner = AutoModel.from_pretrained(tmp_path).eval()
    assert type(inner) is SalmonnModel
    made = processor(with_fbank=beats)
    made.num_audio_tokens = AutoConfig.from_pretrained(tmp_path).num_audio_tokens
    assert made.num_audio_tokens == (100 - 20) // 10 + 1
    inputs = made(text=TEXTS, audio=CLIPS, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(opened(**inputs).logits, speaker(**inputs).logits)
        assert torch.equal(inner(**inputs).last_hidden_state, speaker.model(**inputs).last_hidden_state)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    tied = config()
    tied.text_config.tie_word_embeddings = True
    speaker = SalmonnForConditionalGeneration(SalmonnConfig(**tied.to_dict()))
    assert speaker.lm_head.weight is speaker.get_input_embeddings().weight
    speaker.save_pretrained(tmp_path)
    opened = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert opened.lm_head.weight is opened.get_input_embeddings().weight


def test_full_size() -> None:
    with torch.device("meta"):
        full = AutoModelForMultimodalLM.from_config(SalmonnConfig())
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in full.model.named_children()}
    width, wide, heard = 768, 3072, 1280 + 768

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    norm = 2 * width
    attention = 4 * linear(width, width) + norm
    cross = 2 * linear(width, width) + 2 * linear(heard, width) + norm
    feed_forward = linear(width, wide) + linear(wide, width) + norm
    norms = 2 * 1280 + 2 * 768
    assert sizes["qformer"] == norms + width + norm + 2 * (attention + cross + feed_forward) + linear(width, 4096)
    assert sizes["qformer"] == 25_991_936
    assert sizes["language_model"] == 32002 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    assert sizes["speech_encoder"] == 636_784_640  # large-v2's encoder
