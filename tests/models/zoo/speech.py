"""SALMONN, and its sibling that also sees, of this library: both transformers-style classes under the Auto classes."""

from __future__ import annotations

from typing import Any

from transformers import Blip2QFormerConfig, CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast, WhisperConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from equipoise.models.audio_vision import (
    AudioVisionConfig,
    AudioVisionForConditionalGeneration,
    AudioVisionProcessor,
)
from equipoise.models.salmonn import (
    BeatsConfig,
    SalmonnConfig,
    SalmonnFeatureExtractor,
    SalmonnForConditionalGeneration,
    SalmonnProcessor,
)
from models.zoo.words import TEXT, ids, tokenizer

POSITIONS = 100  # of Whisper's encoder: clips of up to 2 s
SPECIAL = ["<unk>", "<s>", "</s>", "[PAD]", "<audio>"]


def salmonn() -> tuple[SalmonnForConditionalGeneration, SalmonnProcessor]:
    """Whisper and BEATs, window-level Q-Former, Llama."""
    words = _words(SPECIAL)
    config = SalmonnConfig(**_parts(words))
    features = SalmonnFeatureExtractor(max_source_positions=POSITIONS)
    return SalmonnForConditionalGeneration(config), SalmonnProcessor(
        features, words, num_audio_tokens=config.num_audio_tokens
    )


def audio_vision() -> tuple[AudioVisionForConditionalGeneration, AudioVisionProcessor]:
    """SALMONN with CLIP and LLaVA's projector."""
    words = _words([*SPECIAL, "<image>"])
    config = AudioVisionConfig(
        **_parts(words),
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=8,
        ),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )  # fmt: skip
    processor = AudioVisionProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        SalmonnFeatureExtractor(max_source_positions=POSITIONS),
        words,
        num_audio_tokens=config.num_audio_tokens,
        num_image_tokens=config.image_seq_length,
    )
    return AudioVisionForConditionalGeneration(config), processor


def _words(special: list[str]) -> PreTrainedTokenizerFast:
    return tokenizer(special, bos="<s>", eos="</s>", pad="[PAD]", add_bos=True)


def _parts(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "text_config": LlamaConfig(**TEXT, **ids(words), num_key_value_heads=2),
        "speech_config": WhisperConfig(
            d_model=24, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=80,
            max_source_positions=POSITIONS, init_std=0.2,
        ),
        "beats_config": BeatsConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, patch_embed_dim=12,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, num_buckets=32, max_distance=64,
            initializer_range=0.3,
        ),
        "qformer_config": Blip2QFormerConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
            cross_attention_frequency=1, initializer_range=0.4,
        ),
        "audio_token_id": words.convert_tokens_to_ids("<audio>"),
        "initializer_range": 0.2,
    }  # fmt: skip
