"""Facts of model families, one file each: what makes up the feature encoder, and what of it instruction tuning trains.

A family is found by its config's `model_type`; what is not listed is looked at by the generic one.
"""

from __future__ import annotations

from torch import nn

from equipoise.models.families.blip2 import BLIP2
from equipoise.models.families.family import Family
from equipoise.models.families.flamingo import FLAMINGO
from equipoise.models.families.generic import GENERIC
from equipoise.models.families.idefics import IDEFICS
from equipoise.models.families.internvl import INTERNVL
from equipoise.models.families.llava import LLAVA
from equipoise.models.families.llava_qformer import LLAVA_QFORMER
from equipoise.models.families.paligemma import PALIGEMMA
from equipoise.models.families.qwen2_audio import QWEN2_AUDIO
from equipoise.models.families.salmonn import AUDIO_VISION, SALMONN
from equipoise.models.families.voxtral import VOXTRAL
from equipoise.modules.partition import base_model

__all__ = ["FAMILIES", "GENERIC", "Family", "family_of"]

FAMILIES = {
    model_type: family
    for family in (
        LLAVA,
        LLAVA_QFORMER,
        BLIP2,
        INTERNVL,
        SALMONN,
        AUDIO_VISION,
        PALIGEMMA,
        IDEFICS,
        FLAMINGO,
        QWEN2_AUDIO,
        VOXTRAL,
    )
    for model_type in family.model_types
}


def family_of(model: nn.Module) -> Family:
    """The family of a transformers model, through a peft wrapper if there is one."""
    return of_type(getattr(getattr(base_model(model), "config", None), "model_type", ""))


def of_type(model_type: str) -> Family:
    """The family of a config's `model_type`."""
    return FAMILIES.get(model_type, GENERIC)
