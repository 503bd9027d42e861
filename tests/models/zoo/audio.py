"""Audio families: Qwen2-Audio and Voxtral."""

from __future__ import annotations

from transformers import (
    LlamaConfig,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    VoxtralConfig,
    VoxtralEncoderConfig,
    VoxtralForConditionalGeneration,
    VoxtralProcessor,
    WhisperFeatureExtractor,
)

from models.zoo.words import TEXT, ids, tokenizer

PROJECTOR = 0.2  # its weights' deviation: large, for a clip's tokens are many and alike


def qwen2_audio() -> tuple[Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor]:
    """Whisper-style encoder for clips of up to 2 s, linear projector, Qwen2."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    words = tokenizer(special, eos="<|im_end|>", pad="<|endoftext|>")
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=16, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24,
            max_source_positions=100, initializer_range=0.3,
        ),
        text_config=Qwen2Config(**TEXT, **ids(words), num_key_value_heads=2),
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
        initializer_range=PROJECTOR,
    )  # fmt: skip
    features = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    return Qwen2AudioForConditionalGeneration(config), Qwen2AudioProcessor(features, words)


def voxtral(seconds: int = 2) -> tuple[VoxtralForConditionalGeneration, VoxtralProcessor]:
    """Whisper-style encoder of windows of so many seconds (30 in the release), projector over four frames, Llama."""
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<SPECIAL_{i}>" for i in range(5, 24)), "[AUDIO]",
               "[BEGIN_AUDIO]"]  # fmt: skip
    special[11] = "<pad>"  # the processor knows [AUDIO] by its id, 24
    words = tokenizer(special, bos="<s>", eos="</s>", pad="<pad>", add_bos=True)
    config = VoxtralConfig(
        audio_config=VoxtralEncoderConfig(
            num_mel_bins=16, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_source_positions=50 * seconds, initializer_range=0.3,
        ),
        text_config=LlamaConfig(**TEXT, **ids(words), num_key_value_heads=2, head_dim=8),
        audio_token_id=words.convert_tokens_to_ids("[AUDIO]"),
        initializer_range=PROJECTOR,
    )  # fmt: skip
    features = WhisperFeatureExtractor(feature_size=16, chunk_length=seconds)
    return VoxtralForConditionalGeneration(config), VoxtralProcessor(features, words)
