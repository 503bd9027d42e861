"""CoMMIT's tables and figures on the embedded stacks (docs/experiments.md: the protocol, and what came out).

    python -m experiments.commit run OUT tune                        # learning rates first, with a seed of their own
    python -m experiments.commit run OUT table1 --seeds 0,1,2,3,4    # schedules on six tasks
    python -m experiments.commit run OUT one-rate table2 ablations   # and the others of `commit_plan`
    python -m experiments.commit controls OUT                        # what a score is worth: majority, shuffled inputs
    python -m experiments.commit summary docs/experiments-commit.md  # all tables, of what is recorded, into the page
    python -m experiments.commit figures docs                        # and the figures (needs Chromium)

Every run is made by `equipoise compare`, one folder a cell: OUT/EXPERIMENT/CELL; what it measured is recorded in
experiments/records/commit, which tables, figures and learning rates are read from (`--records` names another folder).
What is finished in OUT is not run again, in this experiment or another, nor is a seed that is recorded for all of a
cell's methods (its file in the records, deleted, has it made anew): the same command goes on where it was stopped.
Seeds are gone through one by one, all cells with each: whenever it is stopped, what there is is balanced. `--cells`
names some of them; `--slots` runs several at once, one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from equipoise.training.run_directory import write_atomically, write_json
from experiments.commit_page import page
from experiments.commit_plan import BASELINE, CELLS, EXPERIMENTS, MAIN, TUNED_ON, Cell, Experiment, Settings, at
from experiments.commit_results import Results
from experiments.records import RECORDS, record


def run(
    out: Path, records: Path, names: Sequence[str], cells: Sequence[str] | None, seeds: Sequence[int] | None, slots: int
) -> None:
    """Make what is missing of some experiments."""
    for name in names:
        experiment = EXPERIMENTS[name]
        chosen = [CELLS[cell] for cell in experiment.cells if cells is None or cell in cells]
        methods = {cell.name: rated(records, experiment, cell) for cell in chosen}
        wanted = [seed for seed in experiment.seeds if seeds is None or seed in seeds]
        missing = {cell.name: lacking(records, name, cell, methods[cell.name], wanted) for cell in chosen}
        for seed in wanted:
            for cell in (cell for cell in chosen if seed in missing[cell.name]):
                until = [one for one in missing[cell.name] if one <= seed]
                bring_over(out, records, name, cell, methods[cell.name])
                compare(experiment, cell, out / name / cell.name, methods[cell.name], until, slots)
                record(out / name / cell.name, records / name / f"{cell.name}.jsonl")


def lacking(records: Path, name: str, cell: Cell, methods: Mapping[str, Settings], seeds: Sequence[int]) -> list[int]:
    """The seeds that are not recorded for all methods of a comparison."""
    runs = Results(records).runs(name, cell.name)
    return [seed for seed in seeds if any(seed not in runs.get(method, {}) for method in methods)]


def rated(records: Path, experiment: Experiment, cell: Cell) -> Mapping[str, Settings]:
    """An experiment's methods, each with a tuned learning rate where its settings name none.

    Raises:
        SystemExit: it has not been tuned.
    """
    methods = experiment.methods
    whose = {
        name: name if experiment.rates == "own" else BASELINE
        for name, settings in methods.items()
        if not any(setting.startswith("train.learning_rate=") for setting in settings)
    }
    tuned = Results(records).best_rates(TUNED_ON[cell.stack]) if whose else {}
    if missing := [name for name in dict.fromkeys(whose.values()) if name not in tuned]:
        sys.exit(f"{', '.join(missing)}: no tuned learning rate on {cell.stack}; `run OUT tune` comes first")
    return {name: at(own, tuned[whose[name]]) if name in whose else own for name, own in methods.items()}


def bring_over(out: Path, records: Path, name: str, cell: Cell, methods: Mapping[str, Settings]) -> None:
    """Link the finished runs that other experiments have of the same methods on a cell, so that they are not remade."""
    nodes = out / name / cell.name / "nodes"
    for other, experiment in EXPERIMENTS.items():
        made = out / other / cell.name / "nodes"
        if other == name or not made.is_dir() or experiment.scored != EXPERIMENTS[name].scored:
            continue
        theirs = rated(records, experiment, cell)
        alike = [method for method, settings in methods.items() if theirs.get(method) == settings]
        for node in (node for method in alike for node in made.glob(f"{method}@*-*")):
            if (node / "scores-test.json").is_file() and not (nodes / node.name).exists():
                nodes.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=nodes.parent) as scratch:
                    linked = Path(scratch) / node.name
                    shutil.copytree(node, linked, copy_function=os.link, ignore=shutil.ignore_patterns(".locks"))
                    linked.rename(nodes / node.name)


def compare(
    experiment: Experiment, cell: Cell, out: Path, methods: Mapping[str, Settings], seeds: Iterable[int], slots: int
) -> None:
    """Have `equipoise compare` make what is missing of a comparison."""
    command = [sys.executable, "-m", "equipoise", "compare", str(cell.file), "train.threads=1"]
    command += [f"train.feature_folder={out.parents[1].resolve() / 'features'}"]
    if not experiment.scored:
        command += [f"tasks.{task}.{key}=null" for task in cell.tasks for key in ("metric", "test")]
    command += ["--out", str(out), "--slots", str(slots), "--seeds", ",".join(map(str, seeds))]
    for name, settings in methods.items():
        command += ["--method", f"{name}: {' '.join(settings)}"]
    subprocess.run(command, check=True)


def controls(out: Path, records: Path) -> None:
    """Score the first seed's constant run of each cell once more, with the majority answer and shuffled inputs."""
    for name, cell in CELLS.items():
        folders = sorted(out.glob(f"{'table1' if name in MAIN else 'backbones'}/{name}/nodes/{BASELINE}@0-*"))
        target = records / "controls" / f"{name}.json"
        if folders and not target.is_file():
            subprocess.run([sys.executable, "-m", "equipoise", "evaluate", str(folders[0])], check=True)
            scores = json.loads((folders[0] / "scores.json").read_text(encoding="utf-8"))
            write_json(target, {task: scores["tasks"][task] for task in cell.tasks})


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("run", "out"), ("controls", "out"), ("summary", "page"), ("figures", "folder")):
        command = commands.add_parser(name)
        command.add_argument(what, type=Path)
        command.add_argument("--records", type=Path, default=RECORDS / "commit")
        if name == "run":
            command.add_argument("experiments", nargs="+", choices=EXPERIMENTS, metavar="EXPERIMENT")
            command.add_argument("--cells", type=lambda text: text.split(","))
            command.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")])
            command.add_argument("--slots", type=int, default=1)
    given = parser.parse_args()
    if given.command == "run":
        run(given.out, given.records, given.experiments, given.cells, given.seeds, given.slots)
    elif given.command == "controls":
        controls(given.out, given.records)
    elif given.command == "summary":
        before = given.page.read_text(encoding="utf-8") if given.page.is_file() else ""
        write_atomically(given.page, page(Results(given.records), before))
    else:
        from experiments.commit_figures import draw  # plotly takes its time

        draw(Results(given.records), given.folder)


if __name__ == "__main__":
    main()
