"""A SALMONN small enough for seconds, with a real Llama tokenizer; its clips are 2 s at most, 5 tokens each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaTokenizer

from equipoise.models.audio_vision import AudioVisionConfig
from equipoise.models.salmonn import SalmonnConfig, SalmonnFeatureExtractor, SalmonnProcessor

POSITIONS, TOKENS = 100, 5
SENTENCES = (
    "USER: <Speech></Speech> What do you hear?\nASSISTANT: a dog barks.",
    "USER: Say hello.\nASSISTANT: hello there",
    "Recognize the speech and give me the transcription.",
)


def tokenizer(*more: str) -> LlamaTokenizer:
    """Llama's own, trained on a few sentences, with the tokens the conversion adds."""
    words = [word for sentence in SENTENCES for word in sentence.split()]  # no token may span a space, as in Vicuna's
    trained = LlamaTokenizer().train_new_from_iterator(words, vocab_size=90)
    trained.add_special_tokens({"pad_token": "[PAD]"})
    trained.add_tokens(["<audio>", *more], special_tokens=True)
    return trained


def config(beats: bool = True, **options: Any) -> SalmonnConfig:
    return options.pop("kind", SalmonnConfig)(
        text_config={
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 128,
            "initializer_range": 0.15,
            "pad_token_id": None,
        },
        speech_config={
            "d_model": 24,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "num_mel_bins": 80,
            "max_source_positions": POSITIONS,
            "init_std": 0.2,
        },
        beats_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "patch_embed_dim": 12,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "num_buckets": 32,
            "max_distance": 64,
            "initializer_range": 0.3,
        }
        if beats
        else None,
        qformer_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "cross_attention_frequency": 1,
            "initializer_range": 0.4,
        },
        audio_token_id=tokenizer().convert_tokens_to_ids("<audio>"),
        initializer_range=0.2,
        **options,
    )


def audio_vision_config() -> AudioVisionConfig:
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    words = tokenizer("<image>")
    return config(  # type: ignore[return-value]
        kind=AudioVisionConfig,
        vision_config=vision,
        image_seq_length=4,
        vision_feature_layer=-1,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )


def extractor(**options: Any) -> SalmonnFeatureExtractor:
    return SalmonnFeatureExtractor(max_source_positions=POSITIONS, **options)


def processor(**options: Any) -> SalmonnProcessor:
    return SalmonnProcessor(extractor(**options), tokenizer(), num_audio_tokens=TOKENS)


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    """A chirp in noise, float32 at 16 kHz."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * (200 + 150 * seed) * time * (1 + time)) + 0.05 * generator.normal(size=len(time))
    return wave.astype(np.float32)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
