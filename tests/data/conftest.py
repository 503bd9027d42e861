"""The embedded stack's processor: the only part of it that collation needs."""

from __future__ import annotations

import pytest
from transformers import ProcessorMixin

from equipoise.models.loading import load_processor
from equipoise.recipe import Model


@pytest.fixture(scope="session")
def processor() -> ProcessorMixin:
    return load_processor(Model(path="embedded:smol-vlm"))
