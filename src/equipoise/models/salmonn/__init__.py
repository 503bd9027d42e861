"""SALMONN (Tang et al., ICLR 2024) as a transformers model; importing it registers it with the Auto classes."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

from equipoise.models.salmonn.beats import BeatsModel
from equipoise.models.salmonn.configuration import BeatsConfig, SalmonnConfig
from equipoise.models.salmonn.features import SalmonnFeatureExtractor
from equipoise.models.salmonn.modeling import SalmonnForConditionalGeneration, SalmonnModel
from equipoise.models.salmonn.processing import SalmonnProcessor

__all__ = [
    "BeatsConfig",
    "BeatsModel",
    "SalmonnConfig",
    "SalmonnFeatureExtractor",
    "SalmonnForConditionalGeneration",
    "SalmonnModel",
    "SalmonnProcessor",
]

AutoConfig.register(BeatsConfig.model_type, BeatsConfig, exist_ok=True)
AutoConfig.register(SalmonnConfig.model_type, SalmonnConfig, exist_ok=True)
AutoModel.register(BeatsConfig, BeatsModel, exist_ok=True)
AutoModel.register(SalmonnConfig, SalmonnModel, exist_ok=True)
AutoModelForMultimodalLM.register(SalmonnConfig, SalmonnForConditionalGeneration, exist_ok=True)
AutoFeatureExtractor.register(SalmonnConfig, SalmonnFeatureExtractor, exist_ok=True)
AutoProcessor.register(SalmonnConfig, SalmonnProcessor, exist_ok=True)
