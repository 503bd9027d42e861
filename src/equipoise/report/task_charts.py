"""The part of a page that shows a mixture's tasks in training: figures with their words, and a table of the same."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from equipoise.report import task_figures
from equipoise.report.charts import Chart
from equipoise.report.figures import SMOOTHED
from equipoise.report.markup import ABSENT, decimal, table, tag
from equipoise.report.skeleton import Plot, missing
from equipoise.report.task_figures import KAPPA, LOSS, TOKENS, WEIGHT, constant_weights, tasks_of, total_tokens
from equipoise.report.view import RunView

TASK_LOSS = Chart(
    "task-loss",
    "Loss by task",
    f"Each task's mean loss a supervised token over its last {SMOOTHED} steps; steps that held nothing of a task are "
    "left out. With several runs, thin: single steps. The axis is logarithmic, because tasks may lie decades apart, "
    f"and ends at {task_figures.LOSSES:,} times below the highest.",
    (LOSS,),
    task_figures.loss,
)
TASK_WEIGHT = Chart(
    "task-weight",
    "Task weights",
    "λ of each task in the loss Σ λ NLL / Σ λ T (CoTBal, eq. 2). The line at 1 is the ordinary loss; a factor common "
    "to all tasks changes nothing.",
    (WEIGHT,),
    task_figures.weights,
)
TASK_TOKENS = Chart(
    "task-tokens",
    "Share of supervised tokens",
    "Of all tokens that the loss counted, those of each task. With equal weights, this is also the task's share of the "
    "loss.",
    (TOKENS,),
    task_figures.tokens,
)
TASK_KAPPA = Chart(
    "task-kappa",
    "Balance coefficient by task",
    "κ measured on one task's samples alone. The grey band, a third to three, is what the verdict calls balanced.",
    (KAPPA,),
    task_figures.kappa,
)


def task_section(runs: Sequence[RunView]) -> tuple[str, list[Plot]]:
    """Markup of the section and the figures in it; a line where there is nothing to tell apart."""
    tasks = tasks_of(runs)
    if len(tasks) < 2:
        reason = f"One task, {tasks[0]}: nothing to tell apart." if tasks else "No run logged its tasks apart."
        return missing(reason), []
    constant = [constant_weights(run, tasks) for run in runs]
    steady = all(found is not None or not _logged(run, WEIGHT) for run, found in zip(runs, constant, strict=True))
    charts = [TASK_LOSS, *([] if steady else [TASK_WEIGHT]), TASK_TOKENS, TASK_KAPPA]
    body, plots = [], []
    for chart in charts:
        plot = chart.plot(runs)
        if plot is not None:
            body.append(plot.markup())
            plots.append(plot)
        elif chart is not TASK_KAPPA:  # kappa by task is measured by few recipes
            body.append(missing(f"{chart.heading}: not shown, nothing of it was logged."))
    if steady and any(found is not None for found in constant):
        body.append(tag("p", "The tasks' weights did not change during training; they are in the table."))
    return "".join(body) + task_table(runs), plots


def task_table(runs: Sequence[RunView]) -> str:
    """A row a task and run: what the figures show, in numbers."""
    tasks = tasks_of(runs)
    kappas = any(_logged(run, KAPPA) for run in runs)
    rows = []
    for task in tasks:
        for run in runs:
            counted = total_tokens(run, tasks)
            losses, weights = run.column(LOSS + task)[1], run.column(WEIGHT + task)[1]
            if not (losses or weights or task in counted):
                continue
            few = max(1, len(losses) // 10)
            rows.append(
                [
                    task,
                    run.label,
                    f"{counted[task]:,.0f}" if task in counted else ABSENT,
                    _percent(counted.get(task), sum(counted.values())),
                    decimal(fmean(losses[:few]) if losses else None),
                    decimal(fmean(losses[-few:]) if losses else None),
                    decimal(fmean(weights) if weights else None),
                    decimal(min(weights, default=None)),
                    decimal(max(weights, default=None)),
                    *([_middle(run.column(KAPPA + task)[1])] if kappas else []),
                ]
            )
    header = ["task", "run", "tokens", "share, %", "loss at first", "loss at last", "mean weight", "lowest", "highest"]
    note = "Loss at first and at last: means over the first and the last tenth of the steps that held the task."
    if kappas:
        header.append("median κ")
    return table("Tasks in training", header, rows, note)


def _logged(run: RunView, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in run.columns)


def _percent(part: float | None, whole: float) -> str:
    return ABSENT if part is None or whole <= 0 else f"{100 * part / whole:.1f}"


def _middle(values: Sequence[float]) -> str:
    return decimal(sorted(values)[len(values) // 2] if values else None)
