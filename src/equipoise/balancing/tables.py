"""What `equipoise balance` shows in the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from equipoise.metrics.deltas import Deltas
from equipoise.tasks.contribution import TaskBalance
from equipoise.tasks.plan import BUDGET, FINAL, Plan


def print_plan(plan: Plan, done: Collection[str], console: Console) -> None:
    """Print the graph: a row a node, with its cost in units of the final run."""
    table = Table("run", "scored on", "needs", "cost", "done")
    for node in plan.nodes:
        needs = " to ".join(dict.fromkeys((node.needs[0], node.needs[-1]))) if node.needs else ""
        table.add_row(
            node.name, ", ".join(node.scored_on), needs, f"{node.cost:.3f}", "yes" if node.name in done else ""
        )
    console.print(table)
    finished = sum(node.cost for node in plan.nodes if node.name in done)
    console.print(
        f"{len(plan.nodes)} runs; together they cost {plan.cost:.2f} times the final run's training, "
        f"of which {finished:.2f} are done",
        highlight=False,
    )
    for made in (node.itinerary for node in plan.nodes if node.itinerary is not None):
        answers = ", ".join(f"{task} {count}" for task, count in made.answers.items())
        stretches = ", ".join(f"{name} {steps}" for name, steps in made.stretches.items())
        console.print(
            f"{BUDGET}: {made.warm} steps on all tasks, and from there each time, in steps: {stretches}; after each, "
            f"answers are read: {answers}; after mini, gradients are taken on {made.compared} samples and answers of "
            f"each task. With these it costs {made.cost:.3f} final runs",
            highlight=False,
        )


def print_balance(found: TaskBalance, console: Console) -> None:
    """Print contributions, difficulties and weights; an undefined quantity has an asterisk."""
    table = Table("contribution of", *(f"to {task}" for task in found.tasks))
    for task, row in zip(found.tasks, found.contributions.tolist(), strict=True):
        cells = (
            _flagged(value, other in found.undefined_contributions)
            for other, value in zip(found.tasks, row, strict=True)
        )
        table.add_row(task, *cells)
    console.print(table)
    names = list(found.weights)
    table = Table("task", "one2all", "all2one", "difficulty", *(f"weight by {name}" for name in names))
    for number, task in enumerate(found.tasks):
        table.add_row(
            task,
            f"{found.one2all[number]:.4f}",
            f"{found.all2one[number]:.4f}",
            _flagged(found.difficulty[number], task in found.undefined_difficulties),
            *(f"{found.weights[name][number]:.4f}" for name in names),
        )
    console.print(table)
    if found.undefined_contributions or found.undefined_difficulties:
        console.print("* undefined, and set to 0", highlight=False)
    if found.caution is not None:
        console.print(found.caution, highlight=False, markup=False)


def print_results(
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    compared: Mapping[str, Deltas],
    undefined: Sequence[str],
    console: Console,
) -> None:
    """Print test scores, a row a method, with Delta I and Delta E where they are known."""
    if not results:
        console.print("no task has a test part with answers: nothing to compare", highlight=False)
        return
    columns = list(dict.fromkeys((task, name) for found in results.values() for task in found for name in found[task]))
    deltas = ("Delta I %", "Delta E %") if compared else ()
    table = Table("method", *(f"{task}\n{name}" for task, name in columns), *deltas)
    for method, found in results.items():
        values = (found.get(task, {}).get(name) for task, name in columns)
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        if method in compared:
            cells += [f"{compared[method].delta_i:.2f}", f"{compared[method].delta_e:.2f}"]
        table.add_row(method, *cells)
    console.print(table)
    for name in undefined:
        console.print(f"stl scores 0 on {name}: the improvement over it is undefined and counts as 0", highlight=False)


def print_costs(plan: Plan, costs: Mapping[str, Mapping[str, float | None]], console: Console) -> None:
    """Print what each node took, in units of the final run; nothing where that is not known."""
    final = _total(costs[FINAL])
    if not final:
        return
    table = Table("run", "training", "scoring", "together", caption="wall-clock time, in units of the final run's")
    for node in plan.nodes:
        cost = costs[node.name]
        figures = (cost["training"], cost["scoring"], _total(cost))
        table.add_row(node.name, *("-" if figure is None else f"{figure / final:.3f}" for figure in figures))
    console.print(table)


def _total(cost: Mapping[str, float | None]) -> float | None:
    known = [seconds for seconds in cost.values() if seconds is not None]
    return sum(known) if len(known) == len(cost) else None


def _flagged(value: float, undefined: bool) -> str:
    return f"{value:.4f}{'*' if undefined else ''}"
