"""The runs of a comparison, as nodes of the engine that `equipoise balance` has: every method, with every seed.

Nothing here reads data, trains or writes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from equipoise.comparing.methods import STL
from equipoise.errors import RecipeError
from equipoise.recipe import Recipe, Task
from equipoise.tasks.plan import Node, Scoring, Split, only_what_concerns, private, single_tasks, weighted

#: What a method may change of a task: how it is trained on. All else decides what its scores mean.
TRAINED = frozenset({"train", "max_train", "fraction", "merge", "max_turns", "weight"})


@dataclass(frozen=True)
class Run:
    """One method with one seed.

    Attributes:
        recipe: of the method, with the seed.
        nodes: what must be trained: one, or one a task for `stl`.
    """

    method: str
    seed: int
    recipe: Recipe
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Plan:
    """All runs.

    Attributes:
        baseline: the method that the others are compared with.
        methods, seeds: in the user's order.
        split: what is scored; None where no task can be, and runs are compared by their validation loss.
        runs: of each seed all methods, then of the next: stopped on the way, there are whole pairs.
        settings: by method, what its recipe has otherwise than the baseline's, and what that has there.
    """

    baseline: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    split: Split | None
    runs: tuple[Run, ...]
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def nodes(self) -> list[Node]:
        """Of all runs."""
        return [node for run in self.runs for node in run.nodes]


def make_plan(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    baseline: str,
    counts: Mapping[str, int],
    validated: Collection[str],
    tested: Collection[str],
) -> Plan:
    """Plan a comparison.

    Args:
        recipes: by method.
        seeds: each run's `train.seed`.
        baseline: one of the methods.
        counts: training samples of each task that has a training part, before the task's `fraction`.
        validated: tasks with a metric whose validation part has answers: what is scored where nothing can be tested.
        tested: tasks with a metric and a test part.

    Raises:
        RecipeError: two methods are the same, or are not scored on the same data, or `stl` has no task to be scored on.
    """
    plain = {method: _bare(recipe) for method, recipe in recipes.items()}
    _check(plain, baseline)
    split: Split | None = "test" if tested else "validation" if validated else None
    if STL in plain and not any(task.name in counts and task.name in tested for task in plain[STL].tasks):
        raise RecipeError(f"{STL}: no task is trained on, has a metric and a test part; one or more are needed")
    scored_on: tuple[Scoring, ...] = (split or "loss",)
    runs = []
    for seed in seeds:
        for method, recipe in plain.items():
            seeded = _seeded(recipe, seed)
            if method == STL:
                alone = single_tasks(seeded, counts, tested)
                nodes = [replace(node, name=f"{node.name}@{seed}") for node in alone]
            else:
                nodes = [Node(f"{_file_name(method)}@{seed}", seeded, scored_on, 1.0)]
            runs.append(Run(method, seed, seeded, tuple(nodes)))
    flat = {method: _flat(recipe.model_dump(mode="json")) for method, recipe in plain.items()}
    differing = [key for key in dict.fromkeys(key for one in flat.values() for key in one) if _differs(key, flat)]
    settings = {method: {key: one.get(key) for key in differing} for method, one in flat.items()}
    return Plan(baseline, tuple(recipes), tuple(seeds), split, tuple(runs), settings)


def _bare(recipe: Recipe) -> Recipe:
    """Without what decides nothing about the run, so that changing it runs nothing again."""
    return weighted(private(recipe), only_what_concerns(recipe.balance.tasks.weighter, recipe.balance.tasks))


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


def _check(recipes: Mapping[str, Recipe], baseline: str) -> None:
    known: list[tuple[str, Recipe]] = []
    usual = [_scored(task) for task in recipes[baseline].tasks]
    for method, recipe in recipes.items():
        for other, same in known:
            if STL not in (method, other) and _seeded(recipe, 0) == _seeded(same, 0):
                raise RecipeError(f"methods {other} and {method} are the same: their recipes do not differ")
        known.append((method, recipe))
        for there, here in zip(usual, [_scored(task) for task in recipe.tasks], strict=False):
            for key, value in there.items():
                if here[key] != value:
                    raise RecipeError(
                        f"method {method}: tasks.{there['name']}.{key} is {here[key]!r:.60} and {value!r:.60} in "
                        f"{baseline}; all methods must be scored on the same data"
                    )
        if len(recipe.tasks) != len(usual):
            raise RecipeError(
                f"method {method}: found {len(recipe.tasks)} tasks and {len(usual)} in {baseline}; "
                "all methods must be scored on the same data"
            )


def _scored(task: Task) -> dict[str, Any]:
    return task.model_dump(mode="json", exclude=set(TRAINED))


def _file_name(method: str) -> str:
    """A method's name as part of a folder's; two that become one still have different hashes behind it."""
    return re.sub(r"[^A-Za-z0-9.+=-]", "_", method)


def _flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    """`{a: {b: 1}}` as `{a.b: 1}`; items of lists by their names, or their numbers."""
    if isinstance(plain, dict) and plain:
        pairs = plain.items()
    elif isinstance(plain, list) and plain and all(isinstance(item, dict) for item in plain):
        pairs = [(item.get("name", number), item) for number, item in enumerate(plain)]  # type: ignore[assignment]
    else:
        return {prefix.removesuffix("."): plain}
    return {key: value for name, item in pairs for key, value in _flat(item, f"{prefix}{name}.").items()}


def _differs(key: str, flat: Mapping[str, Mapping[str, Any]]) -> bool:
    values = [one.get(key) for one in flat.values()]
    return key != "train.seed" and any(value != values[0] for value in values)
