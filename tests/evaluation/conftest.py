"""What is made once for these tests, which only read it: the embedded stack, a tiny checkpoint, tiny data."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlavaForConditionalGeneration

from equipoise.data.collate import Collator
from equipoise.models.embedded import smol_vlm
from equipoise.models.loading import load_processor
from equipoise.recipe import Model
from training import _checkpoint as tiny


@pytest.fixture(scope="session")
def model() -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(smol_vlm()).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def collator() -> Collator:
    return Collator(load_processor(Model(path="embedded:smol-vlm")))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight test samples, six for validation, about squares of two colours."""
    return tiny.make_dataset(tmp_path_factory.mktemp("dataset"))
