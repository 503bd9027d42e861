"""The embedded stack, loaded once; tests only read it."""

from __future__ import annotations

import pytest
from transformers import LlavaForConditionalGeneration, ProcessorMixin

from equipoise.models.embedded import smol_vlm
from equipoise.models.loading import load_processor
from equipoise.recipe import Model


@pytest.fixture(scope="session")
def embedded_model() -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(smol_vlm()).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def embedded_processor() -> ProcessorMixin:
    return load_processor(Model(path="embedded:smol-vlm"))
