"""One checkpoint and one dataset for all benchmark tests, and recipes on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from equipoise.recipe import Recipe
from training import _checkpoint as tiny


@pytest.fixture(scope="session")
def make_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """A recipe from coordination settings and training settings; no dropout, so that runs can be compared."""
    checkpoint = tiny.make_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    dataset = tiny.make_dataset(tmp_path_factory.mktemp("dataset"))

    def make(coordination: dict[str, Any] | None = None, **train: Any) -> Recipe:
        return tiny.recipe(checkpoint, dataset, coordination or {}, **{"dropout": 0.0, **train})

    return make
