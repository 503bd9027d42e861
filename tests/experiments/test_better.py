"""experiments/better.py: every method is a valid recipe with the weights that were found, and what is read of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from equipoise.comparing.measured import Measured
from equipoise.recipe_reading import load_recipe

TASKS = ["vqa", "caption", "region", "chart", "count"]


@pytest.fixture(scope="module")
def better(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("better")


def test_methods_are_recipes_with_the_weights_that_were_found(better: ModuleType) -> None:
    rows = [0.5, 1.5, 1.0, 1.0, 1.0], [1.5, 0.5, 1.0, 1.0, 1.0], [1.0] * 5, [0.2, 1.8, 1.0, 1.0, 1.0]
    full = dict(enumerate(map(np.array, rows)))  # the last is of a later seed
    cheap = {2: np.array([1.0, 1.0, 1.0, 1.4, 0.6]), 3: np.array([1.0, 1.0, 1.0, 1.2, 0.8])}
    weights = SimpleNamespace(tasks=TASKS, full={"cotbal": full}, budgets={better.BUDGET: {"cotbal": cheap}})
    recipes = {name: load_recipe(better.RECIPE, settings) for name, settings in better.methods(weights).items()}
    found = {name: list((recipe.balance.tasks.weights or {}).values()) for name, recipe in recipes.items()}
    assert found["cotbal"] == full[0].tolist()
    assert found["cotbal, mean of probes"] == [1.0] * 5
    assert found["budget"] == cheap[2].tolist()
    assert found["budget, mean"] == found["servo and budget, mean"] == pytest.approx([1.0, 1.0, 1.0, 1.3, 0.7])
    assert found["ew"] == found["servo"] == []
    assert next(iter(recipes)) == "ew"
    assert len({recipe.to_yaml() for recipe in recipes.values()}) == len(recipes)
    both = recipes["servo and budget, mean"].balance.modules
    assert (both.schedule, both.controller, both.measure) == ("commit-clr", "servo", True)


def test_scores_of_all_sizes_count_alike(better: ModuleType, tmp_path: Path) -> None:
    def run(method: str, seed: int, caption: float, vqa: float) -> Measured:
        zero = {"region": {"exact_match": 0.0}, "chart": {"relaxed_accuracy": 0.0}, "count": {"exact_match": 0.0}}
        scores = {"caption": {"cider": caption}, "vqa": {"exact_match": vqa}, **zero}
        return Measured(
            method, seed, (f"{method}@{seed}",), scores, 1.0 + seed, kappa=2.0 if method == "servo" else None
        )

    runs = [run("ew", 5, 3.0, 0.4), run("ew", 6, 1.0, 0.6), run("servo", 5, 4.0, 0.5)]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(asdict(one) | {"log": {}}) + "\n" for one in runs))
    text = better.summary(tmp_path / "runs.jsonl")
    # caption's mean is 2, vqa's 0.5; tasks that equal weights leave at 0 are left out
    assert "| `servo` | 1.500 | 6.000 |" in text
    assert "| `servo` | +0.350 | 0.000 |" in text
    assert "| `ew` | 1.000 [" in text
    assert text.endswith("| `ew` |  |\n| `servo` | 2.000 |\n| seeds | 0 to 1 |\n")
