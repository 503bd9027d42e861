"""experiments/cheap_cotbal.py: how agreement is measured, and what is read out of finished runs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy import stats

from equipoise.recipe_reading import load_recipe
from equipoise.tasks.contribution import balance_tasks
from equipoise.tasks.itinerary import Itinerary

ROOT = Path(__file__).parents[2]
TASKS = ("vqa", "caption", "region")


@pytest.fixture(scope="module")
def cheap() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield importlib.import_module("experiments.cheap_cotbal")
    for name in [name for name in sys.modules if name.split(".")[0] == "experiments"]:
        del sys.modules[name]


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_spearman_is_scipys_with_ties_too(cheap):
    for one, other in (((1, 2, 3, 4), (1, 3, 2, 4)), ((1, 1, 2, 3), (4, 3, 2, 2)), ((0, 5, 5, 5), (1, 2, 3, 4))):
        vectors = (dict(enumerate(one)), dict(enumerate(other)))
        assert cheap.spearman(*vectors) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert cheap.spearman({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}) == 0.0


def test_the_summary_compares_seed_with_seed(cheap, tmp_path):
    recipe = load_recipe(ROOT / "recipes" / "embedded-mixture.yaml")
    own = {"vqa": 0.7, "caption": 0.8, "region": 0.9}
    for seed in (0, 1):
        mini = dict(zip(TASKS, (0.5, 0.4, 0.3) if seed else (0.3, 0.4, 0.5), strict=True))
        scores = {"mini": mini, **{f"{task}+mini": {**mini, task: own[task]} for task in TASKS}}
        write(tmp_path / "full" / str(seed) / "balance.json", {"scores": scores})
        write(tmp_path / "full" / str(seed) / "costs.json", {"nodes": {"cotbal": {"training": 90.0, "scoring": 10.0}}})
    itinerary = Itinerary(8, 2, 1, {}, 0, 2, dict.fromkeys(TASKS, 2), dict.fromkeys(TASKS, 80), 8.0, 0.2)
    node = tmp_path / "out" / "nodes" / "budget-1"
    write(node / "scores-budget.json", {"itinerary": asdict(itinerary)})
    read = {task: [{"log_prob": value, "tokens": 2, "hits": 1}] * 2 for task, value in zip(TASKS, (-1, -2, -3))}
    write(node / "read" / "mini.json", read)
    same = {giver: {taker: [[float(giver == taker)] * 2] * 2 for taker in TASKS} for giver in TASKS}
    write(node / "read" / "gradients.json", same)
    seconds = {"training": 15.0, "scoring": 5.0}
    write(tmp_path / "out" / "budget-0.25-1.json", {"seed": 1, "budget": 0.25, "node": "budget-1", "seconds": seconds})
    text = cheap.summary(tmp_path / "out", tmp_path / "full", recipe)
    full = [
        balance_tasks(json.loads((tmp_path / "full" / seed / "balance.json").read_text())["scores"]).weights["cotbal"]
        for seed in "01"
    ]
    rank = stats.spearmanr(*full).statistic
    error = ((full[0] - full[1]) ** 2).mean() ** 0.5
    assert f"| full, seed against seed | {rank:.2f} | {rank:.2f} to {rank:.2f} | {error:.3f} |" in text
    # The budget's run read the least of `region`, as the full probe of seed 1 did.
    assert "| budget 0.25, against full of the same seed | 1.00 | 1.00 to 1.00 |" in text
    assert "| 0.25 | 1 | 15 s | 5 s | 0.200 |" in text
