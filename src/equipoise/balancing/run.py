"""CoTBal from a recipe to a balanced model: runs a plan's nodes one after the other on this machine.

| file | what |
| --- | --- |
| `nodes/NAME-HASH/` | a run directory each, with `scores-validation.json` or `scores-test.json` |
| `balance.json` | validation scores, contributions, difficulties, all weights, settings, which nodes they come from |
| `results.json` | test scores by method, Delta I and Delta E where there is one model per task to compare with |

Every file is written whole or not at all, and whatever stands in a finished node is taken from there: stopped at any
instant, the same command goes on; with another task or method, what it does not concern is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from equipoise.balancing.nodes import Data, node_folder, read_data, run_node, scores_of
from equipoise.balancing.tables import print_balance, print_plan, print_results
from equipoise.data.tasks import check_trains, is_unanswered
from equipoise.errors import DataError, RunError
from equipoise.metrics.deltas import Deltas, deltas
from equipoise.recipe import Recipe, TaskWeighting
from equipoise.tasks.contribution import (
    MINI,
    TaskBalance,
    balance_tasks,
    full_run,
    no_contribution_to,
    no_difficulty_of,
)
from equipoise.tasks.plan import FINAL, STL, Node, Plan, Weighting, alone, make_plan
from equipoise.training.run import preflight
from equipoise.training.run_directory import RunDirectory, write_json

#: By method, by task, by test set: the task's own metric, or the name of its further test set before it.
Results = dict[str, dict[str, dict[str, float]]]
ADVICE = "(--on-degenerate zero takes 0 instead)"


@dataclass
class Balancing:
    """Where CoTBal's results are.

    Attributes:
        path: of everything below.
        final: the run that was trained with the weights; None before it exists.
    """

    path: Path
    final: RunDirectory | None = None

    @property
    def nodes(self) -> Path:
        """Of the run directories."""
        return self.path / "nodes"

    @property
    def balance_file(self) -> Path:
        """Of the weights."""
        return self.path / "balance.json"

    @property
    def results_file(self) -> Path:
        """Of the test scores."""
        return self.path / "results.json"

    def sweep(self) -> None:
        """Delete the temporary files that a killed process left beside what it was about to replace."""
        for leftover in self.path.glob(".*.json-*"):
            leftover.unlink()


def balance(
    recipe: Recipe,
    folder: Path,
    console: Console,
    compare: Sequence[str] = (),
    ablations: bool = False,
    dry_run: bool = False,
) -> Balancing:
    """Find the weights of the recipe's tasks, train with them, compare.

    Args:
        recipe: of the final run; `balance.cotbal` says how weights are found.
        folder: for all results, made if it is not there.
        console: for tables and progress.
        compare: methods to train as well, of `equipoise.tasks.plan.METHODS`.
        ablations: also train with the weights of Table 3's rows.
        dry_run: print the plan and stop.

    Raises:
        RunError: the folder is a run directory.
        RecipeError, DataError, PartitionError: the recipe cannot be run (found before anything is trained), or its
            scores leave a contribution, a difficulty or an improvement undefined (as soon as they exist).
    """
    if RunDirectory(folder).recipe_file.is_file():
        raise RunError(f"{folder} is a run directory; --out names another folder")
    check_trains(recipe)
    data = read_data(recipe, console.print)
    plan = make_plan(recipe, *_facts(recipe, data), compare, ablations)
    made = Balancing(folder)
    job = _Job(recipe, plan, data, made, console)
    print_plan(plan, job.done(), console)
    if dry_run:
        return made
    preflight(recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"tasks": TaskWeighting()})}))
    made.sweep()
    for number, node in enumerate(plan.nodes, start=1):
        job.run(node, f"[{number}/{len(plan.nodes)}] {node.name}")
    job.conclude()
    return made


@dataclass
class _Job:
    """One plan on its way, and what is known so far.

    Attributes:
        scores: validation scores by node, by task.
        folders: of the nodes that are done.
        results: test scores of the methods.
    """

    recipe: Recipe
    plan: Plan
    data: Data
    made: Balancing
    console: Console
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    results: Results = field(default_factory=dict)

    def done(self) -> set[str]:
        """The nodes that need not be run again, as far as that is known without running any."""
        known: dict[str, dict[str, float]] = {}
        done: set[str] = set()
        for node in self.plan.nodes:
            if node.weighting is not None:
                if not done.issuperset(node.needs):
                    continue
                try:
                    recipe = node.weighted(self._weights(node.weighting, known)[1])
                except DataError:  # degenerate: it says so when it is run
                    continue
            else:
                recipe = node.recipe
            folder = node_folder(self.made.nodes, node.name, recipe, self.data)
            found = {split: scores_of(folder, split) for split in node.scored_on}
            if RunDirectory(folder).done and None not in found.values():
                done.add(node.name)
                known[node.name] = found.get("validation") or {}
        return done

    def run(self, node: Node, title: str) -> None:
        """Run a node, or take what is there; stop where its scores leave something undefined."""
        recipe = node.recipe
        if node.weighting is not None:
            found, weights = self._weights(node.weighting, self.scores)
            recipe = node.weighted(weights)
            if node.name == FINAL:
                self._write_balance(node, found)
        folder = node_folder(self.made.nodes, node.name, recipe, self.data)
        self.console.rule(title)
        run_node(node.name, recipe, folder, node.scored_on, self.console)
        self.folders[node.name] = folder
        if "validation" in node.scored_on:
            self.scores[node.name] = scores_of(folder, "validation") or {}
        if "test" in node.scored_on:
            self._add_results(node, scores_of(folder, "test") or {})
        if node.name == FINAL:
            self.made.final = RunDirectory(folder)
        if self.recipe.balance.cotbal.on_degenerate == "error":
            for reason in self._undefined(node):
                raise DataError(f"{reason} {ADVICE}")

    def conclude(self) -> None:
        """Write and print the test scores, and the deltas."""
        compared, undefined = self._deltas()
        write_json(
            self.made.results_file,
            {
                "test": self.results,
                "deltas": {
                    method: {"delta_i": d.delta_i, "delta_e": d.delta_e, "tasks": dict(d.improvements)}
                    for method, d in compared.items()
                },
                **({"degenerate": {"improvements": undefined}} if undefined else {}),
                "nodes": {name: folder.name for name, folder in self.folders.items()},
            },
        )
        print_results(self.results, compared, undefined, self.console)

    def _weights(
        self, weighting: Weighting, scores: Mapping[str, Mapping[str, float]]
    ) -> tuple[TaskBalance, dict[str, float]]:
        """What the scores say about the tasks, and one vector of weights by task."""
        tasks = self.plan.tasks
        found = balance_tasks(
            {run: {task: scores[run][task] for task in tasks} for run in (MINI, *map(full_run, tasks))},
            weighting.temperature,
            weighting.alpha,
            self.recipe.balance.cotbal.on_degenerate,
            {t: (scores[alone(t, whole=False)][t], scores[alone(t)][t]) for t in tasks}
            if weighting.difficulty == "precise"
            else None,
        )
        return found, dict(zip(tasks, found.weights[weighting.vector].tolist(), strict=True))

    def _write_balance(self, node: Node, found: TaskBalance) -> None:
        assert node.weighting is not None
        write_json(
            self.made.balance_file,
            {
                "scores": {name: self.scores[name] for name in node.needs},
                **found.as_dict(),
                "settings": {
                    **self.recipe.balance.cotbal.model_dump(),
                    "seed": self.recipe.train.seed,
                },
                "nodes": {name: self.folders[name].name for name in node.needs},
            },
        )
        print_balance(found, self.console)

    def _add_results(self, node: Node, scores: Mapping[str, float]) -> None:
        """Sort a node's test scores by the task that they belong to."""
        method = STL if node.name.startswith(f"{STL}@") else node.name
        for task in self.recipe.tasks:
            if task.name in scores:
                test_set = f"{task.name} {task.metric}" if task.test_of else str(task.metric)
                of_task = self.results.setdefault(method, {}).setdefault(task.test_of or task.name, {})
                of_task[test_set] = scores[task.name]

    def _undefined(self, node: Node) -> list[str]:
        """What this node's scores, with those so far, leave undefined."""
        reasons: list[str | None] = []
        precise = self.recipe.balance.cotbal.difficulty == "precise"
        for task in self.plan.tasks:
            if node.name == full_run(task):
                pair = self.scores[MINI][task], self.scores[node.name][task]
                reasons.append(no_contribution_to(task, *pair))
                reasons.append(None if precise else no_difficulty_of(task, *pair))
            if precise and node.name == alone(task):
                small = self.scores[alone(task, whole=False)][task]
                reasons.append(no_difficulty_of(task, small, self.scores[node.name][task]))
        if node.name.startswith(f"{STL}@"):
            reasons += [
                f"{STL}: the score of {name} is 0, so no improvement over it is defined" for name in self._zeros()
            ]
        return [reason for reason in reasons if reason is not None]

    def _zeros(self) -> list[str]:
        """The test scores of one model per task that are 0."""
        found = self.results.get(STL, {})
        return [
            f"task {task}, {test_set}"
            for task, values in found.items()
            for test_set, value in values.items()
            if not value
        ]

    def _deltas(self) -> tuple[dict[str, Deltas], list[str]]:
        """Every method against one model per task; an improvement over a score of 0 counts as none and is named."""
        baseline = self.results.get(STL)
        if baseline is None:
            return {}, []
        compared = {
            method: {
                task: {name: found[task][name] if value else 1.0 for name, value in values.items()}
                for task, values in baseline.items()
            }
            for method, found in self.results.items()
        }
        return deltas(compared, STL), self._zeros()


def _facts(recipe: Recipe, data: Data) -> tuple[dict[str, int], list[str], list[str]]:
    """What a plan must know about the data: training samples, and which tasks have which parts to be scored on."""
    counts = {name: parts["train"][0] for name, parts in data.items() if "train" in parts}
    scored = [task for task in recipe.tasks if task.metric is not None]
    validated = [
        task.name for task in scored if "validation" in data[task.name] and not is_unanswered(task, "validation")
    ]
    return counts, validated, [task.name for task in scored if "test" in data[task.name]]
