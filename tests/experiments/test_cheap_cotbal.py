"""experiments/cheap_cotbal.py: how agreement is measured, and what is read out of finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from equipoise.recipe_reading import load_recipe
from equipoise.tasks.contribution import balance_tasks

ROOT = Path(__file__).parents[2]
TASKS = ("vqa", "caption", "region")
#: By seed, V(mini) of each task in the full probes and in the budget's run; all of a task's own data add a half.
FULL = {0: (0.3, 0.4, 0.5), 1: (0.5, 0.4, 0.3), 2: (0.5, 0.3, 0.4)}
BUDGET = {1: (0.45, 0.35, 0.25), 2: (0.2, 0.3, 0.4)}


@pytest.fixture(scope="module")
def cheap(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("cheap_cotbal")


def scores(mini: tuple[float, ...]) -> dict[str, dict[str, float]]:
    small = dict(zip(TASKS, mini, strict=True))
    return {"mini": small, **{f"{task}+mini": {**small, task: small[task] + 0.5} for task in TASKS}}


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def answers(mini: tuple[float, ...], shifts: list[float]) -> dict[str, dict[str, list[float]]]:
    """All probes' answers, by how much each is better than their mean."""
    return {
        run: {task: [mean + shift for shift in shifts] for task, mean in by_task.items()}
        for run, by_task in scores(mini).items()
    }


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    for seed, mini in FULL.items():
        # The budget's tasks come in another order than these.
        content = {"tasks": sorted(TASKS), "weights": balance_tasks(scores(mini)).as_dict()["weights"]}
        write(tmp_path / "full" / str(seed) / "balance.json", content)
        write(tmp_path / "full" / str(seed) / "answers.json", answers(mini, [0.0] * 4))
    write(tmp_path / "full" / "1" / "costs.json", {"nodes": {"cotbal": {"training": 90.0, "scoring": 10.0}}})
    write(tmp_path / "full" / "2" / "costs.json", {"nodes": {"cotbal": {"training": 90.0, "scoring": None}}})
    seconds = {"training": 15.0, "scoring": 5.0}
    for seed, mini in BUDGET.items():
        content = {"seed": seed, "budget": 0.25, "seconds": seconds, "runs": scores(mini)}
        write(tmp_path / "budgets" / f"0.25-{seed}.json", content)
    return tmp_path


def weights_of(minis: Mapping[int, tuple[float, ...]]) -> dict[int, np.ndarray]:
    return {seed: balance_tasks(scores(mini)).weights["cotbal"] for seed, mini in minis.items()}


def test_what_ranks_nothing_agrees_with_nothing(cheap: ModuleType) -> None:
    assert cheap.spearman(np.ones(3), np.array([1.0, 2.0, 3.0])) == 0.0
    assert cheap.spearman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.5, 9.0])) == 1.0


def test_the_summary_compares_seed_with_seed(cheap: ModuleType, finished: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "embedded-mixture.yaml")
    text = cheap.summary(cheap.Weights(finished / "budgets", finished / "full", recipe), finished / "full")
    full, budget = weights_of(FULL), weights_of(BUDGET)

    def line(name: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
        ranks = [stats.spearmanr(*pair).statistic for pair in pairs]
        errors = [np.sqrt(np.mean((one - other) ** 2)) for one, other in pairs]
        found = f"{np.mean(ranks):.2f} | {min(ranks):.2f} to {max(ranks):.2f} | {np.mean(errors):.3f}"
        return f"| {name} | {found} |"

    others = {seed: np.mean([w for other, w in full.items() if other != seed], axis=0) for seed in full}
    first = text.partition("weights by `difficulty`")[0]
    assert line("full probes, seed against seed", [(full[0], full[1]), (full[0], full[2]), (full[1], full[2])]) in first
    assert line("full probes, a seed against the mean of the others", [(full[s], others[s]) for s in full]) in first
    same = [(budget[seed], full[seed]) for seed in budget]
    assert "| full probes, their validation answers drawn anew | 1.00 | 1.00 to 1.00 | 0.000 |" in first
    assert line("budget 0.25, against full probes of the same seed", same) in first
    another = [(budget[seed], full[other]) for seed in budget for other in full if other != seed]
    assert line("budget 0.25, against full probes of another seed", another) in first
    assert line("budget 0.25, against the mean of the others", [(budget[s], others[s]) for s in budget]) in first
    difficulty = [balance_tasks(scores(mini)).weights["difficulty"] for mini in BUDGET.values()]
    alone = [((1 + own) / 2, full[seed]) for own, seed in zip(difficulty, BUDGET, strict=True)]
    assert line("budget 0.25, difficulty alone, against full probes of the same seed", alone) in first
    # All against the others, seed by seed: of the seeds that have both.
    for kind, vectors in {
        "full probes": full,
        "budget 0.25": budget,
        "equal weights": dict.fromkeys(full, 1.0),
    }.items():
        errors = [np.sqrt(np.mean((vectors[s] - others[s]) ** 2)) for s in budget]
        found = " | ".join(f"{error:.3f}" for error in [*errors, np.mean(errors)])
        assert f"| RMSE, {kind} | {found} |" in text
    assert f"| 2 | {stats.spearmanr(*same[1]).statistic:.2f} |" in text
    assert "| 0.25 | 1 | 15 s | 5 s | 0.200 |" in text
    assert "| 0.25 | 2 | 15 s | 5 s |  |" in text


def test_all_probes_answer_the_questions_that_are_drawn(cheap: ModuleType) -> None:
    """Where every probe is better at the same ones, what it gains is not moved by which ones are drawn."""
    recipe = load_recipe(ROOT / "recipes" / "embedded-mixture.yaml")
    drawn = list(cheap.redrawn(answers(FULL[0], [-0.2, -0.1, 0.1, 0.2]), recipe.balance.cotbal))
    for found in drawn:
        np.testing.assert_allclose(found.contributions, np.eye(3), atol=1e-9)
    difficulties = np.array([found.difficulty for found in drawn])
    assert difficulties.std(axis=0).min() > 0.02
    whole = balance_tasks(scores(FULL[0])).difficulty
    np.testing.assert_allclose(difficulties.mean(axis=0), whole, atol=0.05)


def test_of_some_seeds(cheap: ModuleType, finished: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "embedded-mixture.yaml")
    weights = cheap.Weights(finished / "budgets", finished / "full", recipe, [2])
    assert list(weights.budgets[0.25]["cotbal"]) == [2]
    assert list(weights.full["cotbal"]) == [0, 1, 2]


def test_without_full_probes_it_says_what_makes_them(cheap: ModuleType, finished: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "embedded-mixture.yaml")
    with pytest.raises(SystemExit, match=r"python -m experiments\.cotbal run"):
        cheap.Weights(finished / "budgets", finished / "none", recipe)
