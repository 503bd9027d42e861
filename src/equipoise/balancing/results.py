"""Test scores by method, and every method against one model per task."""

from __future__ import annotations

from collections.abc import Mapping

from equipoise.metrics.deltas import Deltas, deltas
from equipoise.recipe import Recipe
from equipoise.tasks.plan import STL, Plan

#: By method, by task, by test set: the task's own metric, or the name of its further test set before it.
Results = dict[str, dict[str, dict[str, float]]]


def results_of(recipe: Recipe, plan: Plan, tests: Mapping[str, Mapping[str, float]]) -> Results:
    """Sort the nodes' test scores by method and by the task that they belong to, in the plan's order.

    Args:
        recipe: whose tasks say what is a further test set of what.
        plan: of the nodes.
        tests: by node, by test set; nodes that have none yet are left out.
    """
    results: Results = {}
    for node in plan.nodes:
        scores = tests.get(node.name, {})
        method = STL if node.name.startswith(f"{STL}@") else node.name
        for task, sets in by_test_set(recipe, scores).items():
            results.setdefault(method, {}).setdefault(task, {}).update(sets)
    return results


def by_test_set(recipe: Recipe, scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """One run's scores by the task that they belong to, by test set, in the recipe's order."""
    found: dict[str, dict[str, float]] = {}
    for task in recipe.tasks:
        if task.name in scores:
            test_set = f"{task.name} {task.metric}" if task.test_of else str(task.metric)
            found.setdefault(task.test_of or task.name, {})[test_set] = scores[task.name]
    return found


def zeros(results: Results) -> list[str]:
    """The test scores of one model per task that are 0, over which no improvement is defined."""
    return [
        f"task {task}, {test_set}"
        for task, values in results.get(STL, {}).items()
        for test_set, value in values.items()
        if not value
    ]


def compared(results: Results) -> dict[str, Deltas]:
    """Every method against one model per task; an improvement over a score of 0 counts as none.

    Returns:
        Nothing where there is no model per task.
    """
    baseline = results.get(STL)
    if baseline is None:
        return {}
    defined = {
        method: {
            task: {name: found[task][name] if value else 1.0 for name, value in values.items()}
            for task, values in baseline.items()
        }
        for method, found in results.items()
    }
    return deltas(defined, STL)
