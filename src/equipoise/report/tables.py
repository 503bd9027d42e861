"""The report's tables: the runs, their scores, the paper's claims, the modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from equipoise.modules.partition import LLM
from equipoise.report.figures import modules_of
from equipoise.report.markup import ABSENT, cut, decimal, table, tag
from equipoise.report.numbers import number
from equipoise.report.view import RunView

SHARES = frozenset({"exact_match", "multiple_choice", "relaxed_accuracy", "box_accuracy"})

FLAWS, FEW, LINE = 20, 3, 400
"""Most samples left out that are named, so many of them that they are seen at once, most letters of each."""


def summary(runs: Sequence[RunView]) -> str:
    """A row a run."""
    tasks = _tasks(runs)
    header = ["run", "method", "steps", "validation loss", *tasks, "mean κ", "std of log κ", "step time"]
    rows = [
        [
            run.label,
            run.method or ABSENT,
            f"{run.steps:,}",
            decimal(run.validation_loss),
            *(decimal(number(run.tasks.get(task, {}).get("value"))) for task in tasks),
            decimal(run.verdict.kappa),
            decimal(run.verdict.std_log_kappa),
            ABSENT if run.step_ratio is None else f"{run.step_ratio:.2f}×",
        ]
        for run in runs
    ]
    note = (
        "Mean κ is the geometric mean after the first quarter of the measurements, and the deviation is of the natural "
        "logarithm. Step time is that of all steps but the first over the same without the time spent on balancing."
    )
    if len(modules_of(runs)) > 2:
        pairs = {run.label: run.verdict.pair for run in runs if run.verdict.pair}
        note += " With more than two modules, κ is that of the least balanced pair: "
        note += "; ".join(f"{label}: {fast} over {slow}" for label, (fast, slow) in pairs.items()) + "."
    return table("The runs", header, rows, note)


def scores(runs: Sequence[RunView]) -> str:
    """A row a task and run, with what the score has to beat; empty where nothing was evaluated."""
    rows = [
        [
            task,
            run.label,
            str(run.scores.get("split") or ABSENT),
            str(found.get("metric", ABSENT)).replace("_", " "),
            decimal(number(found.get("value"))),
            _error(found),
            decimal(number(found.get("majority"))),
            decimal(number(found.get("shuffled_inputs"))),
            _count(found.get("samples")),
        ]
        for task in _tasks(runs)
        for run in runs
        if (found := run.tasks.get(task)) is not None
    ]
    if not rows:
        return ""
    header = ["task", "run", "split", "metric", "score", "± s.e.", "majority", "shuffled inputs", "samples"]
    note = (
        "Majority: always giving the commonest answer. Shuffled inputs: the same model, each question with another "
        "question's image or clip. A score no better than these has not used it. The standard error is that of a share "
        "of so many answers; it says nothing of other seeds."
    )
    return table("Scores and what they have to beat", header, rows, note)


def data(runs: Sequence[RunView]) -> str:
    """What the runs read, what they left out because it could not be read, and why; empty where no run wrote it down.

    An evaluation counts what it left out, in `scores.json`, and does not name it.
    """
    rows, lists = [], []
    for run in runs:
        for part, task, found in _read(run):
            rows.append([task, part, run.label, _count(found.get("samples")), _count(found.get("skipped"))])
            flaws = found.get("flaws")
            if isinstance(flaws, list) and flaws:
                lists.append(_flaws(f"{task}, {part}, {run.label}", flaws, number(found.get("skipped"))))
    if not rows:
        return ""
    note = (
        "Samples that cannot be read are left out where the recipe says data.on_error: skip. equipoise data RECIPE "
        "names all of them."
    )
    return table("Samples read and left out", ["task", "part", "run", "samples", "left out"], rows, note) + "".join(
        lists
    )


def _read(run: RunView) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Part, task and counts, of training and of the evaluation."""
    for part, tasks in run.data.items():
        for task, found in tasks.items() if isinstance(tasks, dict) else ():
            if isinstance(found, dict):
                yield str(part), str(task), found
    for task, found in run.tasks.items():
        yield str(run.scores.get("split") or ABSENT), task, {**found, "skipped": found.get("skipped", 0)}


def _flaws(heading: str, flaws: Sequence[object], skipped: float | None) -> str:
    """The samples that were left out, each with its file and the reason; open where they are few."""
    lines = "".join(tag("li", cut(str(flaw), LINE)) for flaw in flaws[:FLAWS])
    more = max(len(flaws), int(skipped or 0)) - min(len(flaws), FLAWS)
    if more > 0:
        lines += tag("li", f"and {more:,} more", class_="missing")
    opened = " open" if len(flaws) <= FEW else ""
    return f'<details{opened}>{tag("summary", f"Left out: {heading}")}<ul class="flaws">{lines}</ul></details>\n'


def claims(runs: Sequence[RunView]) -> str:
    """What the paper claims of every step, and on how many it held; empty where no run logged any of it."""
    rows: list[list[str]] = []

    def row(name: str, key: str, holds: Callable[[float], bool]) -> None:
        columns = [run.column(key)[1] for run in runs]
        if any(columns):
            rows.append([name, *(_outcome([holds(value) for value in column]) for column in columns)])

    row("Theorem A.3: λ > 1 throughout", "theory/lambda", lambda value: value > 1)
    prefix = "theory/gradient_bound_holds/"
    bounded = dict.fromkeys(key.removeprefix(prefix) for run in runs for key in run.columns if key.startswith(prefix))
    for name in sorted(bounded, key=lambda module: module != LLM):
        right = "(κ + 1) Hˢ" if name == LLM else "(1/κ + 1) Hˣ"
        row(f"Theorem 4.2: ‖G‖ of {name} ≤ {right}", prefix + name, bool)
    row("Eq. 16: joint drift ≤ sum of the drifts", "theory/triangle_holds", bool)
    gammas = [run.last("theory/lipschitz_gamma") for run in runs]
    if any(gamma is not None for gamma in gammas):
        fitted = ["not measured" if gamma is None else f"fitted: γ = {decimal(gamma)}" for gamma in gammas]
        rows.append(["Eq. 15: |change of loss| ≤ γ · drift", *fitted])
    if not rows:
        return ""
    note = (
        "Each claim is computed at every measurement; the table counts those on which it held. λ > 1 at every step "
        "would mean an imbalance that grows for ever, so a run that settles has to refute it. The proofs assume a "
        "metric and KL divergence is none. Eq. 15 holds by construction: γ is the smallest that fits the run."
    )
    return table("The paper's claims, and whether they held", ["claim", *(run.label for run in runs)], rows, note)


def modules(runs: Sequence[RunView]) -> str:
    """What learns in each run; runs with the same table share one. Empty where no run has any."""
    groups: list[tuple[Sequence[Mapping[str, Any]], list[str]]] = []
    for run in runs:
        same = next((labels for rows, labels in groups if rows == run.module_table), None)
        if same is not None:
            same.append(run.label)
        elif run.module_table:
            groups.append((run.module_table, [run.label]))
    header = ["module", "tensors", "trainable", "frozen", "kind", "base learning rate"]
    parts = []
    for found, labels in groups:
        rows = [
            [
                str(entry.get("module", ABSENT)),
                *(_count(entry.get(key)) for key in ("tensors", "trainable", "frozen")),
                str(entry.get("kind", ABSENT)),
                _rate(entry.get("learning_rate")),
            ]
            for entry in found
        ]
        parts.append(table("Modules" if len(runs) == 1 else f"Modules of {', '.join(labels)}", header, rows))
    return "".join(parts)


def _tasks(runs: Iterable[RunView]) -> list[str]:
    return list(dict.fromkeys(task for run in runs for task in run.tasks))


def _outcome(held: Sequence[bool]) -> str:
    if not held:
        return "not measured"
    count = sum(held)
    if count == len(held):
        return f"held: {count:,} of {count:,}"
    return f"held on {count:,} of {len(held):,} ({100 * count / len(held):.1f} %), so not throughout"


def _error(found: Mapping[str, Any]) -> str:
    """Standard error of a share of right answers; a dash for scores that are no share."""
    value, samples = number(found.get("value")), number(found.get("samples"))
    if str(found.get("metric")) not in SHARES or value is None or not samples or not 0 <= value <= 1:
        return ABSENT
    return f"{math.sqrt(value * (1 - value) / samples):.3f}"


def _count(value: object) -> str:
    found = number(value)
    return ABSENT if found is None else f"{found:,.0f}"


def _rate(value: object) -> str:
    found = number(value)
    return ABSENT if found is None else f"{found:.3g}"
