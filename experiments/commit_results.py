"""What the runs of `experiments.commit` measured: tables with intervals and verdicts, as Markdown.

Nothing here trains; it reads what is recorded of the runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from equipoise.comparing.measured import Measured
from equipoise.comparing.verdict import shown
from experiments.commit_plan import BASELINE, CELLS, EXPERIMENTS, METHODS, RATES, TUNED_AS, TUNED_ON
from experiments.records import BY_MODULE, FACTOR, Recorded, Runs, recorded
from experiments.tables import Table, Values, row

Read = Callable[[Measured], float | None]
#: Steps that the training loss is averaged over.
SMOOTH = 8
#: Experiments that show each module.
EACH_MODULE_SHOWN = ("backbones", "otherwise-tower-too")


class Results:
    """What is recorded of all experiments.

    Attributes:
        folder: of the records: EXPERIMENT/CELL.jsonl.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[tuple[str, str], Runs] = {}

    def recorded(self, experiment: str, cell: str) -> Runs:
        """Of one comparison, with the logs."""
        key = experiment, cell
        if key not in self._read:
            self._read[key] = recorded(self.folder / experiment / f"{cell}.jsonl")
        return self._read[key]

    def runs(self, experiment: str, cell: str) -> dict[str, dict[int, Measured]]:
        """Of one comparison, by method, by seed."""
        return measured(self.recorded(experiment, cell))

    def log(self, experiment: str, cell: str, run: Measured) -> list[dict[str, float]]:
        """A run's lines, one a step."""
        return self.recorded(experiment, cell)[run.method][run.seed].lines

    def controls(self, cell: str) -> Mapping[str, Mapping[str, float]]:
        """By task of a cell, `value`, `majority` and `shuffled_inputs`, where they have been measured."""
        file = self.folder / "controls" / f"{cell}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def best_rates(self, cell: str) -> dict[str, float]:
        """By method, the rate that was tuned on a cell."""
        return best_rates(self.runs("tune", cell))


def measured(runs: Runs) -> dict[str, dict[int, Measured]]:
    """Without the logs."""
    return {method: {seed: run.measured for seed, run in by_seed.items()} for method, by_seed in runs.items()}


def best_rates(tuning: Mapping[str, Mapping[int, Measured]]) -> dict[str, float]:
    """By method, the rate with the smallest validation loss; left out are methods that have not been tried at each."""
    losses = {method: fmean(loss_of(run) for run in runs.values()) for method, runs in tuning.items()}
    tried = {name: [(losses.get(f"{name} at {rate:g}", math.nan), rate) for rate in RATES] for name in METHODS}
    best = {name: min(pairs)[1] for name, pairs in tried.items() if not any(math.isnan(loss) for loss, _ in pairs)}
    return best | {name: best[other] for name, other in TUNED_AS.items() if other in best}


def losses_of(run: Recorded) -> list[float]:
    """The training losses of a run whose log is recorded, one a step; infinite where one is not finite."""
    return [line.get("loss", math.inf) for line in run.lines]


def loss_of(run: Measured) -> float:
    """The validation loss; infinite where it is not finite."""
    return run.validation_loss if run.validation_loss is not None else math.inf


# ---------------------------------------------------------------------- what is read of a run


def score_on(cell: str) -> Read:
    """Its test score on a cell, the mean over its tasks; None where one is missing."""
    tasks, metric = CELLS[cell].tasks, CELLS[cell].metric

    def read(run: Measured) -> float | None:
        found = [run.scores[task][metric] for task in tasks if metric in run.scores.get(task, {})]
        return fmean(found) if len(found) == len(tasks) else None

    return read


def steps_to(target: float, losses: Sequence[float]) -> float | None:
    """The share of a run's steps after which its smoothed loss is at a target or below; None where it never is.

    Args:
        target: in nats a token.
        losses: one a step; smoothed by the mean over the last `SMOOTH` steps.
    """
    below = (step for step in range(SMOOTH, len(losses) + 1) if fmean(losses[step - SMOOTH : step]) <= target)
    step = next(below, None)
    return None if step is None else step / len(losses)


def speeds(results: Results, experiment: str, cell: str) -> dict[str, Values]:
    """By method, by seed: the share of the steps until the smoothed training loss is where constant's ends.

    A run that never gets there counts as 1, the least that it can have taken.
    """
    found = _reached(results, experiment, cell)
    return {
        method: {seed: 1.0 if share is None else share for seed, share in by.items()} for method, by in found.items()
    }


def _reached(results: Results, experiment: str, cell: str) -> dict[str, dict[int, float | None]]:
    curves = {
        method: {seed: losses_of(run) for seed, run in found.items() if run.log}
        for method, found in results.recorded(experiment, cell).items()
    }
    ends = {seed: fmean(losses[-SMOOTH:]) for seed, losses in curves.get(BASELINE, {}).items()}
    return {
        method: {seed: steps_to(ends[seed], losses) for seed, losses in found.items() if seed in ends}
        for method, found in curves.items()
    }


# ---------------------------------------------------------------------- tables


QUANTITIES: Mapping[str, tuple[Read, bool]] = {
    "Validation loss, nats a token (lower is better)": (lambda run: run.validation_loss, False),
    "Mean kappa (geometric, after the first quarter)": (lambda run: run.kappa, True),
    "Standard deviation of log kappa": (lambda run: run.std_log_kappa, False),
}


def tables(results: Results, experiment: str) -> list[Table]:
    """Scores, losses, kappas and speeds of one experiment."""
    runs = {cell: results.runs(experiment, cell) for cell in EXPERIMENTS[experiment].cells}
    runs = {cell: found for cell, found in runs.items() if found}
    if not runs:
        return []
    scores = {
        cell: {method: values(found, score_on(cell)) for method, found in by_method.items()}
        for cell, by_method in runs.items()
    }
    made = [Table("Test scores (higher is better)", scores)] if EXPERIMENTS[experiment].scored else []
    for title, (read, ratio) in QUANTITIES.items():
        found = {
            cell: {m: values(by_seed, read) for m, by_seed in by_method.items()} for cell, by_method in runs.items()
        }
        made.append(Table(title, found, ratio))
    if BASELINE in EXPERIMENTS[experiment].methods:
        speed = {cell: speeds(results, experiment, cell) for cell in runs}
        made.append(Table("Share of the steps until `constant`'s final training loss is reached", speed))
    return made


def left_out(results: Results, experiment: str) -> str:
    """Runs that an experiment's tables cannot show: without a finite loss, and never at constant's."""
    lines = []
    for cell in EXPERIMENTS[experiment].cells:
        runs = results.runs(experiment, cell)
        diverged = {m: [s for s, run in by.items() if not math.isfinite(loss_of(run))] for m, by in runs.items()}
        reached = _reached(results, experiment, cell)
        never = {m: [s for s, share in by.items() if share is None] for m, by in reached.items()}
        for what, found in (("no finite validation loss, in no mean", diverged), ("never there, counted as 1", never)):
            texts = [f"`{m}` {len(seeds)} of {len(runs[m])}" for m, seeds in found.items() if seeds]
            lines += [f"- {cell}, {what}: {', '.join(texts)}"] if texts else []
    return "\n".join(lines)


def values(runs: Mapping[int, Measured], read: Read) -> Values:
    """By seed, what is known and finite."""
    found = {seed: read(run) for seed, run in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}


def tuned_table(results: Results, cell: str) -> str:
    """The validation loss of each method at each rate; the chosen one in bold."""
    runs, chosen = results.runs("tune", cell), results.best_rates(cell)
    lines = [f"**Tuning on {cell}: validation loss**", ""]
    lines += [row(["method", *(f"{rate:g}" for rate in RATES)]), row(["---"] * (len(RATES) + 1))]
    for name in METHODS:
        texts = []
        for rate in RATES:
            found = runs.get(f"{name} at {rate:g}", {})
            text = shown(fmean(map(loss_of, found.values()))) if found else ""
            texts.append(f"**{text}**" if chosen.get(name) == rate else text)
        lines.append(row([f"`{name}`", *texts]))
    return "\n".join(lines)


def controls_table(results: Results) -> str:
    """What a score is worth: beside it the majority answer's, and the same run's with shuffled inputs."""
    found = {f"{cell}: {task}": one for cell in CELLS for task, one in results.controls(cell).items()}
    if not found:
        return ""
    kinds = {"value": "`constant`, seed 0", "shuffled_inputs": "shuffled inputs", "majority": "majority answer"}
    lines = ["**What a score is worth**", "", row(["task", *kinds.values()]), row(["---"] * (len(kinds) + 1))]
    for task, one in found.items():
        lines.append(row([task, *(shown(one[kind]) if kind in one else "" for kind in kinds)]))
    return "\n".join(lines)


def modules_tables(results: Results, experiment: str) -> list[str]:
    """Of every run, what each module's learning rate was multiplied with, and its drift over the first module's.

    That is `kappa/MODULE`, and `kappa` for the LLM.
    """
    made = []
    for cell in EXPERIMENTS[experiment].cells:
        runs = [run for by_seed in results.recorded(experiment, cell).values() for run in by_seed.values()]
        names = list(
            dict.fromkeys(name for run in runs for name in run.log if name == "kappa" or name.startswith(BY_MODULE))
        )
        if not names:
            continue
        lines = [
            f"**{cell}: learning rates' mean factors, kappas (geometric, after the first quarter)**",
            "",
        ]
        lines += [row(["method", "seed", *names]), row(["---"] * (len(names) + 2))]
        for run in runs:
            texts = [shown(value) if (value := _mean_of(run, name)) is not None else "" for name in names]
            lines.append(row([f"`{run.measured.method}`", str(run.measured.seed), *texts]))
        made.append("\n".join(lines))
    return made


def _mean_of(run: Recorded, name: str) -> float | None:
    column = run.log.get(name, ())
    if name.startswith(FACTOR):
        return fmean(known) if (known := [value for value in column if value is not None]) else None
    logs = [math.log(value) for value in column[len(column) // 4 :] if value]
    return math.exp(fmean(logs)) if logs else None


def sections(results: Results) -> dict[str, str]:
    """By experiment (and `controls`), all of its tables of which there are runs, in Markdown."""
    made = {"tune": "\n\n".join(tuned_table(results, cell) for cell in TUNED_ON.values() if results.runs("tune", cell))}
    made["controls"] = controls_table(results)
    for experiment in EXPERIMENTS:
        if experiment != "tune":
            parts = [*(table.markdown() for table in tables(results, experiment)), left_out(results, experiment)]
            parts += modules_tables(results, experiment) if experiment in EACH_MODULE_SHOWN else []
            made[experiment] = "\n\n".join(part for part in parts if part)
    return {name: text for name, text in made.items() if text}
