"""InternVL (2, 2.5, 3): InternViT, pixel shuffle and an MLP that makes tokens of its features, an LLM."""

from __future__ import annotations

from equipoise.models.families.family import Family

INTERNVL = Family(
    model_types=("internvl",),
    modules={"projector": ("multi_modal_projector",), "vision_tower": ("vision_tower",)},
    trained=frozenset({"projector"}),
    source="CoMMIT, Appendix B.4: the layers that encode visual representations into multimodal tokens are "
    "fine-tuned, the visual encoder frozen (the paper calls them a cross-attention layer; the released model has "
    "layer norm, linear, GELU, linear)",
)
