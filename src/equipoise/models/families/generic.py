"""Any other model that transformers loads: parts are found by the names that its classes give them."""

from __future__ import annotations

from torch import nn

from equipoise.models.families.family import Family
from equipoise.modules.partition import find_decoder


def cross_attention_layers(model: nn.Module) -> list[str]:
    """The names of the layers through which a Flamingo-like decoder looks at images (Idefics, Mllama).

    They live among the decoder's layers, yet what they learn is to read the encoder. An LLM that is itself an encoder
    and a decoder attends across too; that is no business of the encoder's.
    """
    config = getattr(model, "config", None)
    text = getattr(config, "text_config", None) or config
    decoder = find_decoder(model)
    if decoder is None or getattr(text, "is_encoder_decoder", False):
        return []
    inside = {id(module) for module in decoder.modules()}
    return [
        name
        for name, module in model.named_modules()
        if id(module) in inside and "CrossAttention" in type(module).__name__
    ]


GENERIC = Family(
    modules={
        # What stands between tower and LLM; innermost names win, so a merger inside a tower is found here.
        "projector": (
            "multi_modal_projector", "mm_projector", "connector", "projector", "aligner", "adapter", "qformer",
            "query_tokens", "language_projection", "vision_projection", "perceiver_resampler", "resampler",
            "merger", "deepstack_merger_list", "audio_projector", "embed_vision", "embed_audio",
        ),
        "cross_attention": cross_attention_layers,
        "vision_tower": ("vision_tower", "vision_model", "vision_encoder", "visual"),
        "audio_tower": ("audio_tower", "audio_model", "audio_encoder", "speech_encoder", "encoder.audio"),
    },
    trained=frozenset({"projector", "cross_attention"}),
    source="names in transformers' own model files",
)  # fmt: skip
