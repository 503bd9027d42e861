"""Methods by seeds on one recipe: has the runs made (`equipoise.balancing.execution`), and sums up what they found.

| file | what |
| --- | --- |
| `nodes/METHOD@SEED-HASH/` (`stl@TASK@SEED-HASH`) | a run directory each, with its scores (`scores-test.json`) |
| `logs/METHOD@SEED-HASH.log` | what a run printed that was made in another process or on another machine |
| `comparison.json` | the plan, every finished run's numbers, and what follows from them |
| `comparison.md`, `comparison.tex`, `comparison.csv` | the same as tables |
| `report.html` | what `equipoise report` draws of it, once all is finished |

The numbers are written anew after each run, each file whole or not at all, from finished runs alone: stopped at any
instant, they show what there is, and the same command goes on. With another method or seed only what is new is run.
Nothing but the step times depends on the clock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from equipoise.balancing.execution import Work, carry_out
from equipoise.balancing.locks import lock
from equipoise.balancing.nodes import Data, facts_of, has_loss, is_done, node_folder, read_data, scores_of
from equipoise.balancing.places import Where
from equipoise.balancing.results import by_test_set
from equipoise.comparing.measured import Measured
from equipoise.comparing.methods import STL
from equipoise.comparing.plan import Plan, Run, make_plan
from equipoise.comparing.summary import Summary, summarise
from equipoise.comparing.tables import all_tables, overview
from equipoise.comparing.verdict import caveat, verdicts
from equipoise.comparing.writing import comma_separated, latex, markdown
from equipoise.data.tasks import check_trains
from equipoise.errors import RecipeError, RunError
from equipoise.recipe import Recipe
from equipoise.report import report_on
from equipoise.report.numbers import number
from equipoise.report.view import view_one
from equipoise.tasks.plan import Node, Split
from equipoise.training.preflight import preflight
from equipoise.training.run_directory import RunDirectory, write_atomically, write_json

STALE = 3600
"""Seconds after which a report that is not whole is of a process that is gone."""


@dataclass
class Comparison:
    """Where a comparison's results are.

    Attributes:
        path: of everything below.
        summary: None where nothing was run.
    """

    path: Path
    summary: Summary | None = None

    @property
    def nodes(self) -> Path:
        """Of the run directories."""
        return self.path / "nodes"

    @property
    def file(self) -> Path:
        """Of the plan and all numbers."""
        return self.path / "comparison.json"

    @property
    def report(self) -> Path:
        """Its page."""
        return self.path / "report.html"

    def sweep(self) -> None:
        """Delete the temporary files that a killed process left beside what it was about to replace.

        A report may be drawn by anybody at any time, and its file be renamed meanwhile; nobody takes `STALE` for it.
        """
        for leftover in self.path.glob(".comparison.*-*"):
            leftover.unlink(missing_ok=True)
        for leftover in self.path.glob(".report.html-*"):
            with suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > STALE:
                    leftover.unlink()


def compare(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    folder: Path,
    console: Console,
    baseline: str | None = None,
    dry_run: bool = False,
    where: Where | None = None,
) -> Comparison:
    """Train and score every method with every seed, compare, and write all files, the page last.

    Args:
        recipes: by method; their `train.seed` does not count.
        seeds: all methods are run with each.
        folder: for all results, made if it is not there.
        console: for tables and progress.
        baseline: the method that the others are compared with; the first when None.
        dry_run: print the plan and stop.
        where: the runs are made; None: on this machine, one at a time on each of its accelerators, or on the CPU.

    Raises:
        RunError: the folder holds something else, or another process is at work in it; a run's process died again and
            again.
        RecipeError, DataError, PartitionError: a recipe cannot be run, or its runs could not be compared (found before
            anything is trained).
    """
    for other in ("recipe.yaml", "balance.json"):
        if (folder / other).is_file():
            raise RunError(f"{folder} has a {other} and so is no comparison's; --out names another folder")
    baseline = baseline or next(iter(recipes))
    for recipe in recipes.values():
        check_trains(recipe)
    data = _read(recipes, console)
    plan = make_plan(recipes, seeds, baseline, *facts_of(recipes[baseline], data[baseline]))
    if plan.split is None and not has_loss(recipes[baseline], data[baseline]):
        raise RecipeError(
            "found nothing to compare the methods by: no task has a metric and a test or validation part, and none has "
            "a validation part with answers; one of them is needed"
        )
    made = Comparison(folder)
    job = _Job(plan, data, made, console)
    job.print_plan()
    if dry_run:
        return made
    for recipe in recipes.values():
        preflight(recipe)
    with lock(folder, "compare", f"another equipoise compare is at work in {folder}"):
        made.sweep()
        slots = (where or Where()).slots_for(folder, console)
        job.write()
        carry_out(plan.nodes, slots, job.prepare, job.take, console)
        job.print_results()
        report_on([folder])
    return made


@dataclass
class _Job:
    """One plan on its way.

    Attributes:
        data: by method.
        measured: of the runs that are finished, by method and seed.
        concluded: the nodes that are finished.
    """

    plan: Plan
    data: Mapping[str, Data]
    made: Comparison
    console: Console
    measured: dict[tuple[str, int], Measured] = field(default_factory=dict)
    concluded: set[str] = field(default_factory=set)

    def prepare(self, node: Node) -> Work:
        """What a node is to do."""
        return Work(node.name, node.recipe, self._folder(self._run(node), node), node.scored_on, validation_loss=True)

    def take(self, node: Node, work: Work) -> None:
        """Take what a node left, and write all files anew where a run is whole."""
        run = self._run(node)
        self.concluded.add(node.name)
        if self.concluded.issuperset(one.name for one in run.nodes):
            folders = [self._folder(run, one) for one in run.nodes]
            self.measured[run.method, run.seed] = measure(run, folders, self.plan.split)
            self.write()

    def write(self) -> None:
        """Write all files but the report, from what is finished."""
        plan = self.plan
        runs = [(run.method, run.seed) for run in plan.runs]
        measured = [self.measured[run] for run in runs if run in self.measured]
        found = self.made.summary = summarise(measured, plan.methods, plan.baseline)
        write_json(
            self.made.file,
            {
                "baseline": plan.baseline,
                "methods": plan.methods,
                "seeds": plan.seeds,
                "split": plan.split,
                "settings": plan.settings,
                "runs": [asdict(one) for one in measured],
                **found.as_dict(),
            },
        )
        tables, path = all_tables(found, plan.settings), self.made.path
        write_atomically(path / "comparison.md", markdown(tables, verdicts(found), caveat(found)))
        write_atomically(path / "comparison.tex", latex(tables))
        write_atomically(path / "comparison.csv", comma_separated(found, plan.seeds))

    def print_plan(self) -> None:
        """Print a row a run."""
        table = RichTable("run", "method", "seed", "scored on", "done")
        done = 0
        for run in self.plan.runs:
            for node in run.nodes:
                finished = is_done(self._folder(run, node), node.scored_on)
                done += finished
                scored = ", ".join("validation loss" if part == "loss" else part for part in node.scored_on)
                table.add_row(node.name, run.method, str(run.seed), scored, "yes" if finished else "")
        self.console.print(table)
        self.console.print(f"{len(self.plan.nodes)} runs, of which {done} are done", highlight=False)

    def print_results(self) -> None:
        """Print a row a quantity and a column a method, and a sentence a method."""
        found = self.made.summary
        assert found is not None
        shown = overview(found, self.plan.settings)
        names, *rows = zip(shown.header, *shown.rows, strict=True)
        table = RichTable(*names, caption=shown.note)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
        for one in verdicts(found):
            self.console.print(f"{one.method}: {one.name}. {one.sentence}", highlight=False)
        if words := caveat(found):
            self.console.print(words, highlight=False)

    def _run(self, node: Node) -> Run:
        return next(run for run in self.plan.runs if node in run.nodes)

    def _folder(self, run: Run, node: Node) -> Path:
        return node_folder(self.made.nodes, node.name, node.recipe, self.data[run.method])


def measure(run: Run, folders: Sequence[Path], split: Split | None) -> Measured:
    """Read a finished run: its nodes' scores together, and its training's numbers where it is one node."""
    scores: dict[str, float] = {}
    for folder in folders:
        scores |= (scores_of(folder, split) if split is not None else None) or {}
    names, found = tuple(folder.name for folder in folders), by_test_set(run.recipe, scores)
    if run.method == STL:
        return Measured(run.method, run.seed, names, found)
    view = view_one(RunDirectory(folders[0]), run.method)
    return Measured(
        run.method,
        run.seed,
        names,
        found,
        number(view.scores.get("validation_loss")),  # of the finished model; the log's may be of any step
        view.verdict.kappa,
        view.verdict.std_log_kappa,
        view.step_ratio,
    )


def _read(recipes: Mapping[str, Recipe], console: Console) -> dict[str, Data]:
    """Each method's data; methods on the same data share the reading."""
    known: list[tuple[Recipe, Data]] = []
    found = {}
    for method, recipe in recipes.items():
        data = next((data for other, data in known if (other.tasks, other.data) == (recipe.tasks, recipe.data)), None)
        if data is None:
            data = read_data(recipe, console.print)
            known.append((recipe, data))
        found[method] = data
    return found
