"""A comparison that takes seconds: two methods and two seeds of a tiny model on the mixture that it really learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balancing import _mixture as mixture
from equipoise.comparing.methods import parse_methods
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe

METHODS = "constant,commit-clr+dwa"
SEEDS = (0, 1)
NODES = ["constant@0", "commit-clr+dwa@0", "constant@1", "commit-clr+dwa@1"]


def settings(checkpoint: Path, data: Path) -> dict[str, Any]:
    """The mixture's recipe with kappa measured, and fewer steps."""
    content = mixture.settings(checkpoint, data)
    content["balance"] = {"modules": {"schedule": "commit", "samples": 2, "window": 3}}
    content["train"] |= {"max_steps": 8, "save_steps": 2, "learning_rate": 0.01}
    return content


def recipes(file: Path, names: str | None = METHODS, *own: str) -> dict[str, Recipe]:
    """By method, as the command line reads them."""
    return {name: load_recipe(file, settings) for name, settings in parse_methods(names, own).items()}


def name_of(folder: Path) -> str:
    """The node's name, of its folder's NAME-HASH."""
    return folder.name.rpartition("-")[0]
