"""Growth: what is varied really varies in what the model trains on; a small run of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from equipoise.bench.contestants import COORDINATED, DYNAMIC_WEIGHTS, REFERENCE
from equipoise.bench.growth import growth
from equipoise.bench.stage import set_up
from equipoise.bench.synthetic import Size, make
from equipoise.models import loading


@pytest.mark.parametrize(
    "size", [Size(), Size(batch=3, answer=5, vocabulary=2_048, modules=3, tasks=4)], ids=["usual", "other"]
)
def test_a_size_is_what_the_model_trains_on(size: Size, tmp_path: Path) -> None:
    stage = set_up(make(tmp_path, size), 5, lambda _: None)
    collate = loading.load_collator(stage.recipe, stage.processor)
    batch = collate([stage.samples[number] for number in stage.order[: size.batch]])
    assert (batch["labels"] != -100).sum(dim=1).tolist() == [size.answer] * size.batch
    assert batch["input_ids"].max() < size.vocabulary
    assert stage.model(**batch).logits.shape[-1] == size.vocabulary
    assert len(loading.divide(stage.model, stage.recipe.model).trainable) == size.modules
    assert len(stage.samples.parts) == size.tasks
    assert len(stage.order) == 5 * size.batch


def test_a_row_a_value() -> None:
    before = os.environ["EQUIPOISE_INDEX"]
    said: list[str] = []
    found = growth(1, said.append, {"batch": (1, 2)})
    assert os.environ["EQUIPOISE_INDEX"] == before
    assert [row["value"] for row in found["batch"]] == [1, 2]
    assert found["batch"][0]["reference"] == 1
    for row in found["batch"]:
        assert list(row["costs"]) == [c.name for c in (REFERENCE, DYNAMIC_WEIGHTS, *COORDINATED)]
        assert row["costs"][REFERENCE.name]["ratio"] == 1
        assert row["costs"]["commit, exact"]["share"] == 1
        assert row["costs"]["commit-clr"]["share"] == 1  # the default estimator sees each step
    assert "growth, batch 2: steps: round 5 of 5" in said
