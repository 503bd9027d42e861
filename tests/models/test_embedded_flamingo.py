"""The embedded stack with gated cross-attention: SmolLM2 where its gates are shut, and what its layers are."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

import tiny
from equipoise.data.collate import Collator
from equipoise.data.readers import easy_vqa
from equipoise.models.embedded import EMBEDDED, IMAGE_TOKEN, smol_flamingo
from equipoise.models.embedded.flamingo import CROSS_LAYERS, GATE
from equipoise.models.flamingo import FlamingoForConditionalGeneration, ReadingLayer

pytestmark = pytest.mark.slow  # builds half a gigabyte that no other test needs


def test_it_is_smollm2_behind_shut_gates(embedded_model, embedded_processor):
    folder = smol_flamingo()
    assert EMBEDDED["embedded:smol-flamingo"]() == folder
    model = AutoModelForMultimodalLM.from_pretrained(folder).eval().requires_grad_(False)
    layers = model.model.language_model.layers
    assert [n for n, layer in enumerate(layers) if isinstance(layer, ReadingLayer)] == list(CROSS_LAYERS)
    crossing = [layers[number].cross_attention for number in CROSS_LAYERS]
    assert sum(parameter.numel() for layer in crossing for parameter in layer.parameters()) == 14_380_806
    gates = [gate for layer in crossing for gate in (layer.layer.alpha_cross_attn, layer.layer.alpha_dense)]
    assert [gate.item() for gate in gates] == [GATE] * 6
    assert abs(crossing[0].layer.cross_attn.q_proj.weight.std().item() * 576**0.5 - 1) < 0.01
    for gate in gates:
        gate.fill_(0)
    tiny.assert_same(model.model.vision_tower.state_dict(), embedded_model.model.vision_tower.state_dict())

    processor = AutoProcessor.from_pretrained(folder)
    samples = list(easy_vqa.read("caption", "validation", kind="caption"))[:3]
    batch = Collator(processor)(samples)
    image = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert (batch["input_ids"] == image).sum(dim=1).tolist() == [1, 1, 1]
    torch.testing.assert_close(batch["pixel_values"][:, 0], Collator(embedded_processor)(samples)["pixel_values"])
    ids = {name: batch[name] for name in ("input_ids", "attention_mask")}
    alone = embedded_model.lm_head(embedded_model.model.language_model(**ids).last_hidden_state)
    torch.testing.assert_close(model(**batch).logits, alone, atol=1e-3, rtol=0)

    for gate in gates:
        gate.fill_(GATE)
    shown = model(**batch).logits
    batch["pixel_values"] = batch["pixel_values"].flip(0)
    assert (model(**batch).logits - shown).abs().max() > 0.01


def test_every_build_draws_the_same(embedded_model):
    model = AutoModelForMultimodalLM.from_pretrained(smol_flamingo())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        again = FlamingoForConditionalGeneration(model.config).model.language_model.layers[CROSS_LAYERS[0]]
    tiny.assert_same(
        again.cross_attention.state_dict(),
        model.model.language_model.layers[CROSS_LAYERS[0]].cross_attention.state_dict(),
    )
