"""LLaVA with a Q-Former, of this library: any tower, BLIP-2's Q-Former, any LLM, LLaVA's conversations."""

from __future__ import annotations

from dataclasses import replace

from equipoise.models.families.llava import LLAVA

LLAVA_QFORMER = replace(
    LLAVA,
    model_types=("llava_qformer",),
    modules={"qformer": ("multi_modal_projector",), "vision_tower": ("vision_tower",)},
    trained=frozenset({"qformer"}),
    source="as BLIP-2: CoMMIT, Appendix B.4",
)
