"""A mixture for weights by a budget: two twins, which give the same answer to a question, and one opposed to them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from balancing import _mixture as mixture
from equipoise.balancing.nodes import facts_of, node_folder, read_data, run_node
from equipoise.balancing.run import Balancing
from equipoise.locks import PATIENCE
from equipoise.recipe_reading import parse_recipe
from equipoise.tasks.plan import BUDGET, make_plan

TASKS = ("one", "twin", "opposed")
ANSWERS = {"one": "red", "twin": "red", "opposed": "deep blue"}
SAMPLES, TESTED = 24, 6


def settings(checkpoint: Path, data: Path, answers: int, **cotbal: Any) -> dict[str, Any]:
    """The recipe as plain data.

    Args:
        data: where the tasks' files are written, `answers` validation samples each.
    """
    for task, answer in ANSWERS.items():
        (data / task).mkdir(parents=True)
        for split, count in (("train", SAMPLES), ("validation", answers), ("test", TESTED)):
            rows = [{"prompt": "what colour is it", "answer": answer, "id": str(number)} for number in range(count)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (data / task / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    plain = mixture.settings(checkpoint, data, on_degenerate="zero", **cotbal)
    task = {"reader": "jsonl", "metric": "exact_match", "max_new_tokens": 4}
    plain["tasks"] = [{"name": name, "path": str(data / name), **task} for name in TASKS]
    plain["train"] |= {"learning_rate": 0.01, "batch_size": 2, "epochs": 2}
    return plain


def loaded(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def make_node(content: dict[str, Any], folder: Path) -> Path:
    """Make the budget's run alone; its folder."""
    recipe, console = parse_recipe(content, "twins"), Console(file=io.StringIO())
    data = read_data(recipe, console.print)
    [made] = [node for node in make_plan(recipe, *facts_of(recipe, data)).nodes if node.name == BUDGET]
    path = node_folder(folder / "nodes", made.name, made.recipe, data, made.itinerary)
    run_node(made.name, made.recipe, path, made.scored_on, console, PATIENCE, itinerary=made.itinerary)
    return path


def node(made: Balancing) -> Path:
    """The folder of the budget's run."""
    [path] = made.nodes.glob("budget-*")
    return path
