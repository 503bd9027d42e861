"""Agreement with the reference implementation on the same weights and clips: every stage, within 1e-4."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from _reference import AUDIO, BOS, FACTS, GOLDEN, convert, prompts, thin, waveforms
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForMultimodalLM, AutoProcessor

from equipoise.models.salmonn import SalmonnForConditionalGeneration, SalmonnProcessor

TENSORS = load_file(GOLDEN / "golden.safetensors")
CASES = list(FACTS["cases"])
ALONE = [case for case in CASES if len(FACTS["cases"][case]["clips"]) == 1]
BRANCHES = ["full", "speech_only"]
REFERENCE = 64  # the reference's vocabulary; ours has the placeholder behind it

Pair = tuple[SalmonnForConditionalGeneration, SalmonnProcessor]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    opened = {}
    for branch in BRANCHES:
        folder = convert(tmp_path_factory.mktemp(branch), full=branch == "full")
        opened[branch] = (
            AutoModelForMultimodalLM.from_pretrained(folder).eval(),
            AutoProcessor.from_pretrained(folder),
        )
    return opened


def as_released(pair: Pair) -> Pair:
    """The pair with the release's batches."""
    pair[0].config.batch_invariant = pair[0].model.config.batch_invariant = False
    pair[1].feature_extractor.batch_invariant = False
    return pair


def as_ours(pair: Pair) -> Pair:
    pair[0].config.batch_invariant = pair[0].model.config.batch_invariant = True
    pair[1].feature_extractor.batch_invariant = True
    return pair


def golden(case: str, branch: str, name: str) -> str:
    return f"{case}.{name}" if branch == "full" else f"{case}.speech_only.{name}"


def check(actual: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(thin(actual, name), TENSORS[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}.mel" in TENSORS])
@torch.no_grad()
def test_features_and_encoders(case: str, pairs: dict[str, Pair]) -> None:
    model, processor = as_released(pairs["full"])
    inputs = processor.feature_extractor(waveforms(case), return_tensors="pt")
    check(inputs["input_features"], f"{case}.mel")
    check(inputs["fbank"], f"{case}.fbank")
    check(model.model.speech_encoder(inputs["input_features"]).last_hidden_state, f"{case}.whisper")
    heard = model.model.beats(inputs["fbank"], inputs["fbank_mask"], batch_invariant=False)
    check(heard.last_hidden_state, f"{case}.beats")
    padding = torch.zeros(heard.last_hidden_state.shape[:2]) if heard.patch_mask is None else ~heard.patch_mask
    assert torch.equal(padding.bool(), TENSORS[f"{case}.beats_mask"].bool())


def test_filter_banks_are_kaldi_native_fbanks(pairs: dict[str, Pair]) -> None:
    banks = pairs["full"][1].feature_extractor(waveforms("three"), return_tensors="pt")["fbank"]
    check(banks, "three.fbank_kaldi_native")


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_tokens_logits_and_loss(case: str, branch: str, pairs: dict[str, Pair]) -> None:
    model, processor = as_released(pairs[branch])
    inputs = processor.feature_extractor(waveforms(case), return_tensors="pt")
    check(model.model.get_audio_features(**inputs), golden(case, branch, "speech_embeds"))
    ids, mask = prompts(case, answers=True)
    assert torch.equal(mask, TENSORS[f"{case}.attention_mask"].long())
    logits = model(input_ids=ids, attention_mask=mask, **inputs).logits[..., :REFERENCE]
    check(logits, golden(case, branch, "logits"))
    tail = TENSORS[golden(case, branch, "logits_tail")]
    torch.testing.assert_close(logits[:, -tail.shape[1] :], tail, rtol=0, atol=1e-4)
    labels = TENSORS[f"{case}.labels"].long()
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    check(loss[None], golden(case, branch, "loss"))


@pytest.mark.parametrize("case", [case for case in CASES if case != "batch_prompts"])
def test_prompts_have_the_references_tokens(case: str, pairs: dict[str, Pair]) -> None:
    """Our chat template on the whole conversation; the reference tokenizes its pieces apart."""
    processor = pairs["speech_only"][1]
    facts = FACTS["cases"][case]
    question = facts["prompts"][0].partition("</Speech> ")[2].removesuffix("\nASSISTANT:")
    assert question
    for answer, ids in zip(facts["answers"], facts["answer_ids"], strict=True):
        user = [{"type": "audio"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        text = processor.apply_chat_template(messages, tokenize=False)
        made = processor(text=[text], audio=[np.zeros(16_000)], add_special_tokens=False)["input_ids"][0]
        assert made == [BOS, *facts["before_ids"][0], *[AUDIO] * 88, *facts["after_ids"][0], *ids]


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("beams", [1, 4])
@torch.no_grad()
def test_generation(branch: str, beams: int, pairs: dict[str, Pair]) -> None:
    """The tokens the reference generates, with its vocabulary; it was kept from ending an answer."""
    model, processor = as_released(pairs[branch])
    model = copy.deepcopy(model)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight[:REFERENCE])
    for case in ("three", "batch"):
        ids, mask = prompts(case, answers=False)
        inputs = processor.feature_extractor(waveforms(case), return_tensors="pt")
        generated = model.generate(
            input_ids=ids, attention_mask=mask, **inputs, max_new_tokens=8, num_beams=beams, do_sample=False,
            suppress_tokens=[2], pad_token_id=63,
        )  # fmt: skip
        assert generated[:, ids.shape[1] :].tolist() == FACTS["cases"][case]["generated_ids"][branch][f"beams_{beams}"]


@pytest.mark.parametrize("case", ALONE)
@torch.no_grad()
def test_our_batches_agree_with_single_clips(case: str, pairs: dict[str, Pair]) -> None:
    """By default a clip in a batch has the reference's tokens of the clip alone."""
    model, processor = as_ours(pairs["full"])
    clips = [*waveforms(case), *waveforms("thirty" if case != "thirty" else "three")]
    inputs = processor.feature_extractor(clips, return_tensors="pt")
    check(model.model.get_audio_features(**inputs)[:1], f"{case}.speech_embeds")


def test_nothing_is_left_beside_the_model(tmp_path: Path) -> None:
    folder = convert(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm", folder.name, "whisper"]
