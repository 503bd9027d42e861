"""The conversion of the release: merged LoRA or adapter, new tokens, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from _reference import AUDIO, GOLDEN, PAD, VOCABULARY, convert, make_parts
from peft import PeftModel
from transformers import AutoModelForMultimodalLM, AutoProcessor

from equipoise.errors import RecipeError
from equipoise.models.salmonn.convert import convert_salmonn


def checkpoint() -> dict[str, torch.Tensor]:
    return torch.load(GOLDEN / "salmonn.pth", weights_only=True)["model"]


def refused(folder: Path, message: str, **given: Any) -> None:
    """Converting fails in one line, and leaves nothing."""
    paths = {"checkpoint": GOLDEN / "salmonn.pth", "beats": GOLDEN / "beats.pt", "target": folder / "model", **given}
    whisper, llm = make_parts(folder / "parts")
    before = sorted(folder.rglob("*"))
    with pytest.raises(RecipeError, match=message) as caught:
        convert_salmonn(whisper=whisper, llm=llm, num_qformer_heads=2, **paths)
    assert "\n" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "made.pth")
    return folder / "made.pth"


def test_merged_lora_is_the_adapter(tmp_path: Path) -> None:
    merged = AutoModelForMultimodalLM.from_pretrained(convert(tmp_path)).eval()
    folder = convert(tmp_path, name="apart", merge_lora=False)
    base = AutoModelForMultimodalLM.from_pretrained(folder).eval()
    ids = torch.arange(3, 33).reshape(2, 15)
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()
        logits = adapted(input_ids=ids).logits
        torch.testing.assert_close(logits, merged(input_ids=ids).logits, rtol=1e-5, atol=1e-5)
    assert (logits - plain).abs().max() > 0.01
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in adapted.state_dict() if ".lora_" in name} == {
        "q_proj",
        "v_proj",
    }


def test_lora_scale_defaults_to_the_releases(tmp_path: Path) -> None:
    folders = {alpha: convert(tmp_path, name=f"alpha{alpha}", lora_alpha=alpha) for alpha in (0, 32)}
    whisper, llm = make_parts(tmp_path)
    convert_salmonn(
        GOLDEN / "salmonn.pth", GOLDEN / "beats.pt", whisper, llm, tmp_path / "default", num_qformer_heads=2
    )
    name = "model.language_model.layers.1.self_attn.q_proj"
    weights = {
        key: AutoModelForMultimodalLM.from_pretrained(folder).get_submodule(name).weight
        for key, folder in {**folders, "default": tmp_path / "default"}.items()
    }
    key = "llama_model.base_model.model.model.layers.1.self_attn.q_proj.lora_{}.default.weight"
    change = checkpoint()[key.format("B")] @ checkpoint()[key.format("A")] * 32 / 4
    torch.testing.assert_close(weights[32] - weights[0], change, rtol=0, atol=1e-6)
    assert torch.equal(weights["default"], weights[32])


def test_new_tokens(tmp_path: Path) -> None:
    folder = convert(tmp_path, with_pad=False)
    model, processor = AutoModelForMultimodalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert (processor.tokenizer.pad_token, processor.tokenizer.pad_token_id) == ("[PAD]", PAD)
    assert processor.audio_token_id == model.config.audio_token_id == AUDIO
    assert model.generation_config.pad_token_id == PAD
    assert processor.num_audio_tokens == model.config.num_audio_tokens == 88
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert part.weight.shape == (VOCABULARY + 2, 16)
        for row in part.weight[VOCABULARY:]:
            torch.testing.assert_close(row, part.weight[:VOCABULARY].mean(dim=0))
    assert model.config.text_config.vocab_size == VOCABULARY + 2


def test_without_beats(tmp_path: Path) -> None:
    folder = convert(tmp_path, full=False, dtype=torch.bfloat16)
    model, processor = AutoModelForMultimodalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert model.model.beats is None
    assert not processor.feature_extractor.with_fbank
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


class Harmful:
    def __reduce__(self) -> tuple:
        return os.system, ("exit 1",)


@pytest.mark.parametrize("part", ["checkpoint", "beats"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}, "cfg": {}, "config": Harmful()}, "made.pth: cannot be loaded as plain weights"),
        ([1], "made.pth: has no '(model|cfg)'"),
        ({"cfg": {}, "weights": {}}, "made.pth: has no 'model'"),
    ],
)
def test_files_of_another_form_are_refused(part: str, content: object, message: str, tmp_path: Path) -> None:
    refused(tmp_path, message, **{part: saved(tmp_path, content)})


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    refused(tmp_path, "text.pth: cannot be loaded as plain weights", checkpoint=tmp_path / "text.pth")
    refused(tmp_path, "none.pth: cannot be loaded as plain weights", beats=tmp_path / "none.pth")


@pytest.mark.parametrize("part", ["whisper", "llm"])
def test_a_part_that_cannot_be_loaded_is_named(part: str, tmp_path: Path) -> None:
    parts = {**dict(zip(("whisper", "llm"), make_parts(tmp_path), strict=True)), part: tmp_path / "none"}
    with pytest.raises(RecipeError, match=rf"^{part}: .*none cannot be loaded \(") as caught:
        convert_salmonn(GOLDEN / "salmonn.pth", GOLDEN / "beats.pt", target=tmp_path / "model", **parts)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_branches_must_agree(tmp_path: Path) -> None:
    refused(tmp_path, "it was trained with BEATs, and beats is None", beats=None)
    refused(tmp_path, "it was trained without BEATs", checkpoint=GOLDEN / "salmonn_speech_only.pth")


LAYER = "speech_Qformer.bert.encoder.layer.1.crossattention.self.key.bias"
LORA = "llama_model.base_model.model.model.layers.0.self_attn.v_proj.lora_{}.default.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({LAYER: None}, "lacks 1 weights, the first transformer.encoder.layer.1.crossattention.attention.key.bias"),
        ({"speech_query_tokens": None}, "lacks the Q-Former's query_tokens"),
        ({"whatever.weight": torch.zeros(1)}, "has unexpected 1 weights, the first whatever.weight"),
        ({"speech_llama_proj.weight": torch.zeros(8, 24)}, r"projection.weight is \(8, 24\); it must be \(16, 24\)"),
        ({LORA.format("B"): None}, "the LoRA of layers.0.self_attn.v_proj lacks its A, its B"),
        ({LORA.format("A"): torch.zeros(4, 8)}, r"the LoRA of layers.0.self_attn.v_proj does not fit .*\(16, 16\)"),
        (
            {LORA.format("A").replace("0.self_attn", "9.self_attn"): torch.zeros(4, 16)},
            "layers.9.self_attn.v_proj lacks",
        ),
    ],
)
def test_other_weights_are_refused(change: dict[str, torch.Tensor | None], message: str, tmp_path: Path) -> None:
    state = {key: value for key, value in {**checkpoint(), **change}.items() if value is not None}
    refused(tmp_path, message, checkpoint=saved(tmp_path, {"model": state}))


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ({"deep_norm": False}, {}, "cfg.deep_norm is False; BEATs' releases have True"),
        ({"activation_fn": "glu"}, {}, "cfg.activation_fn is 'glu'; BEATs' releases have 'gelu'"),
        ({}, {"encoder.layer_norm.bias": None}, "lacks 1 weights, the first layer_norm.bias"),
        ({}, {"quantizer.weight": torch.zeros(1)}, "has unexpected 1 weights, the first quantizer.weight"),
    ],
)
def test_another_beats_is_refused(options: dict, weights: dict, message: str, tmp_path: Path) -> None:
    whole = torch.load(GOLDEN / "beats.pt", weights_only=True)
    state = {key: value for key, value in {**whole["model"], **weights}.items() if value is not None}
    beats = saved(tmp_path, {"cfg": {**whole["cfg"], **options}, "model": state})
    refused(tmp_path, message, beats=beats)


def test_a_fine_tuned_beats_loses_its_classifier(tmp_path: Path) -> None:
    whole = torch.load(GOLDEN / "beats.pt", weights_only=True)
    whole["model"] |= {"predictor.weight": torch.zeros(527, 16), "predictor.bias": torch.zeros(527)}
    whole["cfg"] |= {"finetuned_model": True, "predictor_class": 527}
    whisper, llm = make_parts(tmp_path)
    made = saved(tmp_path, {**whole, "label_dict": {0: "/m/09x0r"}})
    convert_salmonn(GOLDEN / "salmonn.pth", made, whisper, llm, tmp_path / "tuned", num_qformer_heads=2)
    tuned, plain = (
        AutoModelForMultimodalLM.from_pretrained(folder).state_dict()
        for folder in (tmp_path / "tuned", convert(tmp_path))
    )
    names = {name for name in plain if name.startswith("model.beats.")}
    assert names == {name for name in tuned if name.startswith("model.beats.")}
    assert all(torch.equal(tuned[name], plain[name]) for name in names)


def test_an_existing_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    refused(tmp_path, "model: exists already; name a folder that does not")
