"""What is made once for these tests, which only read it: the embedded stack, a tiny checkpoint, tiny data."""

from __future__ import annotations

import pytest
from transformers import LlavaForConditionalGeneration

from equipoise.data.collate import Collator
from equipoise.models.embedded import smol_vlm
from equipoise.models.loading import load_processor
from equipoise.recipe import Model


@pytest.fixture(scope="session")
def model() -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(smol_vlm()).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def collator() -> Collator:
    return Collator(load_processor(Model(path="embedded:smol-vlm")))
