"""Recipes for CoTBal: its section, `fraction`, further test sets of a task."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from equipoise.errors import RecipeError
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe


def parsed(*further: dict[str, Any], **balance: Any) -> Recipe:
    tasks = [{"name": "vqa", "reader": "easy_vqa"}, *({"reader": "easy_vqa", **task} for task in further)]
    return parse_recipe({"model": {"path": "a/b"}, "tasks": tasks, "balance": balance}, "recipe")


def test_the_defaults_are_the_papers():
    settings = parsed().balance.cotbal
    assert (settings.temperature, settings.alpha, settings.mini_fraction) == (0.5, 0.5, 1 / 32)
    assert (settings.difficulty, settings.on_degenerate) == ("real", "error")


@pytest.mark.parametrize(
    ("cotbal", "message"),
    [
        ({"temperature": 0}, "balance.cotbal.temperature: found 0; input should be greater than 0"),
        ({"alpha": 1.1}, "balance.cotbal.alpha: found 1.1; input should be less than or equal to 1"),
        ({"alpha": True}, "balance.cotbal.alpha: found true; a number is expected"),
        ({"mini_fraction": 1}, "balance.cotbal.mini_fraction: found 1; input should be less than 1"),
        ({"mini_fraction": 0}, "balance.cotbal.mini_fraction: found 0; input should be greater than 0"),
        ({"difficulty": "exact"}, "balance.cotbal.difficulty: found 'exact'; input should be 'real' or 'precise'"),
        ({"minifraction": 1}, "balance.cotbal.minifraction: unknown key; did you mean mini_fraction? allowed: "),
    ],
)
def test_mistakes_in_the_section(cotbal, message):
    with pytest.raises(RecipeError) as caught:
        parsed(cotbal=cotbal)
    assert str(caught.value).startswith(f"recipe: {message}")


@pytest.mark.parametrize("fraction", [0, 1.01, -0.5, True])
def test_a_fraction_is_above_0_and_at_most_1(fraction):
    with pytest.raises(RecipeError, match=r"^recipe: tasks\.b\.fraction: "):
        parsed({"name": "b", "fraction": fraction})


def test_a_further_test_set_belongs_to_a_task_that_is_trained_on():
    assert parsed({"name": "b", "train": None, "test_of": "vqa"}).tasks[1].test_of == "vqa"
    with pytest.raises(RecipeError, match=r"^recipe: tasks\.b: test_of: set train: null with it"):
        parsed({"name": "b", "test_of": "vqa"})
    for other in ("b", "c", "none"):
        with pytest.raises(
            RecipeError, match=rf"^recipe: tasks: b\.test_of: found '{other}'; tasks that are trained on: vqa$"
        ):
            parsed({"name": "b", "train": None, "test_of": other}, {"name": "c", "train": None})


def test_what_is_written_out_reads_back_the_same():
    recipe = parsed({"name": "b", "train": None, "test_of": "vqa", "fraction": 0.1}, cotbal={"mini_fraction": 0.3})
    assert parse_recipe(yaml.safe_load(recipe.to_yaml()), "again") == recipe
