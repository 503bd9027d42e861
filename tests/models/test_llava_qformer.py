"""LLaVA with a Q-Former: what is drawn, what an image becomes, and the embedded stack of it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

import tiny
from equipoise.data.collate import Collator
from equipoise.data.readers import easy_vqa
from equipoise.models.embedded import EMBEDDED, IMAGE_TOKEN, smol_qformer
from equipoise.models.llava_qformer import LlavaQFormerForConditionalGeneration
from models.zoo.images import llava_qformer


def test_new_weights_keep_to_the_qformers_own_deviation():
    config = llava_qformer()[0].config
    config.num_query_tokens = 200
    torch.manual_seed(0)
    projector = LlavaQFormerForConditionalGeneration(config).model.multi_modal_projector
    assert projector.query_tokens.std().item() == pytest.approx(0.2, abs=0.01)
    key = projector.qformer.encoder.layer[0].crossattention.attention.key.weight
    assert key.shape == (24, 16)  # from the tower's width
    assert key.std().item() == pytest.approx(0.2, abs=0.03)


def test_an_image_becomes_as_many_tokens_as_there_are_queries():
    model = llava_qformer()[0].eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        tokens = torch.stack(list(model.get_image_features(pixels, return_dict=True).pooler_output))
        projector = model.model.multi_modal_projector
        features = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        queries = projector.query_tokens.expand(2, -1, -1)
        asked = projector.qformer(query_embeds=queries, encoder_hidden_states=projector.norm(features))
    assert tokens.shape == (2, 3, 32)
    torch.testing.assert_close(tokens, projector.projection(asked.last_hidden_state))


@pytest.mark.slow  # builds half a gigabyte that no other test needs
def test_the_embedded_stack_differs_from_llavas_in_the_projector_alone(embedded_model, embedded_processor):
    folder = smol_qformer()
    assert EMBEDDED["embedded:smol-qformer"]() == folder
    model = AutoModelForMultimodalLM.from_pretrained(folder).eval().requires_grad_(False)
    for part in ("language_model", "vision_tower"):
        ours, theirs = (getattr(one.model, part).state_dict() for one in (model, embedded_model))
        tiny.assert_same(ours, theirs)
    projector = model.model.multi_modal_projector
    assert sum(parameter.numel() for parameter in projector.parameters()) == 6_340_672
    assert {module.p for module in projector.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        again = LlavaQFormerForConditionalGeneration(model.config).model.multi_modal_projector
    tiny.assert_same(again.state_dict(), projector.state_dict())

    processor = AutoProcessor.from_pretrained(folder)
    samples = list(easy_vqa.read("caption", "validation", kind="caption"))[:3]
    batch = Collator(processor)(samples)
    tiny.assert_same(batch, Collator(embedded_processor)(samples))
    image = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert (batch["input_ids"] == image).sum(dim=1).tolist() == [16, 16, 16]
    with torch.no_grad():
        shown = model(**batch).logits
        batch["pixel_values"] = batch["pixel_values"].flip(0)
        assert (model(**batch).logits - shown).abs().max() > 0.01
