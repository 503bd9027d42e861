"""Better than both papers' methods? Cheap weights and a servo on the embedded mixture (docs/experiments.md).

    python -m experiments.better run OUT --seeds 5,6,7,8,9             # final runs of all methods
    python -m experiments.better summary docs/experiments-better.md    # the page of what is recorded

Weights are those that are recorded of the full probes (`experiments.cotbal run`) and of those for a quarter of a final
run (`experiments.cheap_cotbal run`), judged on other seeds than they were found with, by `equipoise compare`; what the
runs measured is recorded in experiments/records/better.jsonl. What is finished is not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equipoise.recipe_reading import load_recipe
from equipoise.training.run_directory import write_atomically
from experiments import cheap_cotbal, cotbal
from experiments.cheap_cotbal import Weights
from experiments.commit_plan import Settings, modules
from experiments.commit_results import Read, measured, values
from experiments.cotbal import RECIPE, numbers
from experiments.records import RECORDS, record, recorded
from experiments.tables import Table
from experiments.tables import Values as BySeed

BUDGET = 0.25
PROBED = (0, 1, 2)  # the seeds whose probes there were before the first of these runs; later ones change nothing
RUNS = RECORDS / "better.jsonl"
SERVO = modules("schedule=commit-clr", "controller=servo", "measure=true", "theory=false")
COMMIT = modules("schedule=commit", "measure=true", "theory=false")
HEAD = """# All tables of *better than both*

Written by `python -m experiments.better summary`; [Experiments](experiments.md) says what they mean and how intervals
and p are made. In brackets 95 % intervals over seeds; bold where p is below 0.05."""


def methods(weights: Weights) -> Mapping[str, Settings]:
    """Equal weights first; CoTBal's from one seed's probes and from the mean of three; each paper's own; both together.

    A seed's probes cost about as much as eight budgets: the budgets' mean is what can be had for the same money.
    """
    full = [weights.full["cotbal"][seed] for seed in PROBED]
    cheap = weights.budgets[BUDGET]["cotbal"]

    def fixed(vector: np.ndarray) -> Settings:
        by_task = zip(weights.tasks, vector.tolist(), strict=True)
        return ("balance.tasks.weighter=fixed", *(f"balance.tasks.weights.{task}={w:.6f}" for task, w in by_task))

    budgets = fixed(np.mean(list(cheap.values()), axis=0))
    return {
        "ew": (),
        "cotbal": fixed(full[0]),
        "cotbal, mean of probes": fixed(np.mean(full, axis=0)),
        "budget": fixed(cheap[min(cheap)]),
        "budget, mean": budgets,
        "commit": COMMIT,
        "servo": SERVO,
        "servo and budget, mean": (*SERVO, *budgets),
    }


def run(out: Path, weights: Weights, seeds: Sequence[int], slots: int) -> None:
    """Have `equipoise compare` make what is missing, seed by seed."""
    for count in range(1, len(seeds) + 1):
        command = [sys.executable, "-m", "equipoise", "compare", str(RECIPE), "train.threads=1", "--out", str(out)]
        command += [f"train.feature_folder={out.resolve() / 'features'}"]
        command += ["--slots", str(slots), "--seeds", ",".join(map(str, seeds[:count]))]
        for name, settings in methods(weights).items():
            command += ["--method", f"{name}: {' '.join(settings)}"]
        subprocess.run(command, check=True)
        record(out, RUNS)


def summary(file: Path) -> str:
    """Test scores by task, their mean change against equal weights, the validation loss, kappa: the page."""
    runs = measured(recorded(file))
    metrics = {task.name: task.metric for task in load_recipe(RECIPE).tasks if task.metric is not None}
    scores = {
        task: {method: values(found, score_in(task, metric)) for method, found in runs.items()}
        for task, metric in metrics.items()
    }
    losses = {method: values(found, lambda run: run.validation_loss) for method, found in runs.items()}
    kappas = {method: values(found, lambda run: run.kappa) for method, found in runs.items()}
    tables = (
        Table("Test scores (higher is better)", scores),
        Table("All tasks (loss: lower is better)", {"mean score": mean_scores(scores), "validation loss": losses}),
        Table("Where it was measured", {"mean kappa": kappas}, ratio=True),
    )
    return "\n\n".join([HEAD, *(table.markdown() for table in tables)]) + "\n"


def score_in(task: str, metric: str) -> Read:
    """A run's score on a task; None where it has none."""
    return lambda run: run.scores.get(task, {}).get(metric)


def mean_scores(scores: Mapping[str, Mapping[str, BySeed]]) -> dict[str, BySeed]:
    """By method, by seed, the mean over tasks of scores that were divided by what equal weights have on average.

    CIDEr and accuracies have other sizes; a task that equal weights leave at 0 is left out.
    """
    first = {task: np.mean(list(next(iter(by_method.values())).values())) for task, by_method in scores.items()}
    known = [task for task, size in first.items() if size > 0]
    by_method: dict[str, BySeed] = {}
    for method in next(iter(scores.values())):
        seeds = set.intersection(*(set(scores[task][method]) for task in known))
        by_method[method] = {
            s: float(np.mean([scores[task][method][s] / first[task] for task in known])) for s in seeds
        }
    return by_method


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("run")
    making.add_argument("out", type=Path)
    making.add_argument("--seeds", type=numbers, default=[5, 6, 7, 8, 9])
    making.add_argument("--slots", type=int, default=1)
    commands.add_parser("summary").add_argument("page", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        weights = Weights(cheap_cotbal.RECORDED, cotbal.RECORDED, load_recipe(RECIPE))
        run(given.out, weights, given.seeds, given.slots)
    else:
        write_atomically(given.page, [summary(RUNS)])


if __name__ == "__main__":
    main()
