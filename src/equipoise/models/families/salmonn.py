"""SALMONN, and its sibling here with an image tower: Whisper and BEATs, a window-level Q-Former, Vicuna."""

from __future__ import annotations

from equipoise.models.families.family import Family

SALMONN = Family(
    model_types=("salmonn",),
    modules={"qformer": ("qformer",), "audio_tower": ("speech_encoder", "beats")},
    trained=frozenset({"qformer"}),
    source="CoMMIT, Section 7 and Appendix B.4: the audio Q-Former is fine-tuned; Whisper and BEATs stay frozen as in "
    "SALMONN's release, which trains the layer norms before and the projection after the Q-Former with it",
)
AUDIO_VISION = Family(
    model_types=("audio_vision",),
    modules={"projector": ("multi_modal_projector",), "vision_tower": ("vision_tower",), **SALMONN.modules},
    trained=frozenset({"projector", "qformer"}),
    source="LLaVA's and SALMONN's facts together: three modules that learn",
)
