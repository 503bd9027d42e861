"""CoTBal from a recipe to a balanced model: has a plan's nodes run (`execution`), and makes something of their scores.

| file | what |
| --- | --- |
| `nodes/NAME-HASH/` | a run directory each, with `scores-validation.json` or `scores-test.json` |
| `logs/NAME-HASH.log` | what a node printed that ran in another process or on another machine |
| `balance.json` | validation scores, contributions, difficulties, all weights, settings, which nodes they come from |
| `results.json` | test scores by method, Delta I and Delta E where there is one model per task to compare with |
| `costs.json` | the seconds that each node's training and scoring took; no other file depends on the clock |

Every file is written whole or not at all, and whatever stands in a finished node is taken from there: stopped at any
instant, the same command goes on; with another task or method, what it does not concern is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from equipoise.balancing.execution import Work, carry_out
from equipoise.balancing.nodes import Data, cost_of, estimates_of, facts_of, is_done, node_folder, read_data, scores_of
from equipoise.balancing.places import Where
from equipoise.balancing.results import Results, compared, results_of, zeros
from equipoise.balancing.tables import print_balance, print_costs, print_plan, print_results
from equipoise.data.tasks import check_trains
from equipoise.disk import told
from equipoise.errors import DataError, RunError
from equipoise.locks import lock
from equipoise.recipe import Recipe, TaskWeighting
from equipoise.tasks.contribution import (
    MINI,
    TaskBalance,
    balance_tasks,
    full_run,
    no_contribution_to,
    no_difficulty_of,
)
from equipoise.tasks.plan import FINAL, STL, Node, Plan, Weighting, alone, check_methods, make_plan
from equipoise.training.preflight import preflight
from equipoise.training.run_directory import RunDirectory, write_json

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

    @property
    def costs_file(self) -> Path:
        """Of the times."""
        return self.path / "costs.json"

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
    where: Where | None = None,
) -> Balancing:
    """Find the weights of the recipe's tasks, train with them, compare.

    Args:
        recipe: of the final run; `balance.cotbal` says how weights are found.
        folder: for all results, made if it is not there.
        console: for tables and progress.
        compare: methods to train as well, of `equipoise.tasks.plan.METHODS`.
        ablations: also train with the weights of Table 3's rows.
        dry_run: print the plan and stop.
        where: the nodes run; None: on this machine, one at a time on each of its accelerators, or on the CPU.

    Raises:
        RunError: the folder is a run directory, or another process is at work in it; a node's process died again and
            again.
        DiskError: it cannot be written.
        RecipeError, DataError, PartitionError: the recipe cannot be run (found before anything is trained), or its
            scores leave a contribution, a difficulty or an improvement undefined (as soon as they exist).
    """
    if RunDirectory(folder).recipe_file.is_file():
        raise RunError(f"{folder} is a run directory; --out names another folder")
    check_methods(compare)
    check_trains(recipe)
    data = read_data(recipe, console.print)
    plan = make_plan(recipe, *facts_of(recipe, data), compare, ablations)
    made = Balancing(folder)
    job = _Job(recipe, plan, data, made, console)
    print_plan(plan, job.done(), console)
    if dry_run:
        return made
    preflight(recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"tasks": TaskWeighting()})}))
    with told(folder), lock(folder):
        made.sweep()
        slots = (where or Where()).slots_for(folder, console)
        carry_out(plan.nodes, slots, job.prepare, job.take, console)
        job.conclude()
    return made


@dataclass
class _Job:
    """One plan on its way, and what is known so far.

    Attributes:
        scores: validation scores by node, by task.
        tests: likewise, of test sets.
        folders: of the nodes that are done.
    """

    recipe: Recipe
    plan: Plan
    data: Data
    made: Balancing
    console: Console
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    tests: dict[str, dict[str, float]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

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
            folder = node_folder(self.made.nodes, node.name, recipe, self.data, node.itinerary)
            if is_done(folder, node.scored_on):
                done.add(node.name)
                known |= _validation_scores(node, folder)
        return done

    def prepare(self, node: Node) -> Work:
        """What a node is to do, now that the nodes it needs are done."""
        recipe = node.recipe
        if node.weighting is not None:
            found, weights = self._weights(node.weighting, self.scores)
            recipe = node.weighted(weights)
            if node.name == FINAL:
                self._write_balance(node, found)
        folder = node_folder(self.made.nodes, node.name, recipe, self.data, node.itinerary)
        return Work(node.name, recipe, folder, node.scored_on, itinerary=node.itinerary)

    def take(self, node: Node, work: Work) -> None:
        """Take what a node left; stop where its scores, with those so far, leave something undefined."""
        self.folders[node.name] = work.folder
        self.scores |= _validation_scores(node, work.folder)
        if "test" in node.scored_on:
            self.tests[node.name] = scores_of(work.folder, "test") or {}
        if node.name == FINAL:
            self.made.final = RunDirectory(work.folder)
        if self.recipe.balance.cotbal.on_degenerate == "error":
            for reason in self._undefined():
                raise DataError(f"{reason} {ADVICE}")

    def conclude(self) -> None:
        """Write and print the test scores, the deltas, and what each node took."""
        results = self._results()
        by_method, undefined = compared(results), zeros(results)
        write_json(
            self.made.results_file,
            {
                "test": results,
                "deltas": {
                    method: {"delta_i": d.delta_i, "delta_e": d.delta_e, "tasks": dict(d.improvements)}
                    for method, d in by_method.items()
                },
                **({"degenerate": {"improvements": undefined}} if undefined else {}),
                "nodes": {node.name: self.folders[node.name].name for node in self.plan.nodes},
            },
        )
        costs = {node.name: cost_of(self.folders[node.name], node.scored_on) for node in self.plan.nodes}
        write_json(self.made.costs_file, {"nodes": costs, "final": FINAL})
        print_results(results, by_method, undefined, self.console)
        print_costs(self.plan, costs, self.console)

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
        budget = self.recipe.balance.cotbal.budget
        runs = node.needs if budget is None else (MINI, *map(full_run, self.plan.tasks))
        write_json(
            self.made.balance_file,
            {
                "probes": "full" if budget is None else "budget",
                "scores": {name: self.scores[name] for name in runs},
                **found.as_dict(),
                "settings": {
                    **self.recipe.balance.cotbal.model_dump(),
                    "seed": self.recipe.train.seed,
                },
                "nodes": {name: self.folders[name].name for name in node.needs},
            },
        )
        print_balance(found, self.console)

    def _undefined(self) -> list[str]:
        """What the scores so far leave undefined."""
        scores, reasons = self.scores, list[str | None]()
        precise = self.recipe.balance.cotbal.difficulty == "precise"
        for task in self.plan.tasks:
            small, whole = alone(task, whole=False), alone(task)
            if MINI in scores and full_run(task) in scores:
                pair = scores[MINI][task], scores[full_run(task)][task]
                reasons.append(no_contribution_to(task, *pair))
                reasons.append(None if precise else no_difficulty_of(task, *pair))
            if precise and small in scores and whole in scores:
                reasons.append(no_difficulty_of(task, scores[small][task], scores[whole][task]))
        reasons += [
            f"{STL}: the score of {name} is 0, so no improvement over it is defined" for name in zeros(self._results())
        ]
        return [reason for reason in reasons if reason is not None]

    def _results(self) -> Results:
        return results_of(self.recipe, self.plan, self.tests)


def _validation_scores(node: Node, folder: Path) -> dict[str, dict[str, float]]:
    """What a node that is done says of validation scores: its own, or those of the probes that it stands for."""
    if node.itinerary is not None:
        return estimates_of(folder) or {}
    return {node.name: scores_of(folder, "validation") or {}} if "validation" in node.scored_on else {}
