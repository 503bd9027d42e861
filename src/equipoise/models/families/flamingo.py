"""Flamingo, of this library: any tower, gated cross-attention layers between those of a Llama-like LLM."""

from __future__ import annotations

from equipoise.models.families.family import Family
from equipoise.models.families.generic import cross_attention_layers

FLAMINGO = Family(
    model_types=("flamingo",),
    modules={"cross_attention": cross_attention_layers, "vision_tower": ("vision_tower",)},
    trained=frozenset({"cross_attention"}),
    source="Alayrac et al. 2022, Section 2: the cross-attention layers and their gates learn, the tower is frozen; "
    "the LLM, frozen there too, gets LoRA as CoMMIT's do",
)
