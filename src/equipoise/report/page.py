"""The report of one or several runs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipoise.report import tables
from equipoise.report.browse import predictions_section
from equipoise.report.charts import CHARTS, THEORY, Chart
from equipoise.report.markup import decimal, safe, swatch, tag
from equipoise.report.palette import LIGHT
from equipoise.report.settings import settings_section
from equipoise.report.skeleton import NO_SCRIPT, Page, Plot, Section, legend, missing, write_page
from equipoise.report.starving import starvation, unlearnt
from equipoise.report.task_charts import task_section
from equipoise.report.verdict import BALANCED, UNKNOWN
from equipoise.report.view import RunView, view_all
from equipoise.training.run_directory import RunDirectory


def build_report(runs: Sequence[RunDirectory], target: Path, media: bool = True) -> Path:
    """Write the report of one or several runs.

    The same runs give the same bytes. Missing files are named in the report and are no error.

    Args:
        runs: in the order in which they are shown.
        target: the file, written whole or not at all.
        media: whether the predictions' pictures and clips are in it.

    Returns:
        `target`.

    Raises:
        RunError: there is no run.
    """
    return write_page(target, report_page(runs, media))


def report_page(runs: Sequence[RunDirectory], media: bool = True) -> Page:
    """The same, not yet written.

    Raises:
        RunError: there is no run.
    """
    views = view_all(runs)
    labels = [view.label for view in views]
    names = ", ".join(labels)
    tasks, of_tasks = task_section(views)
    verdicts = '<ul class="verdicts">\n' + "".join(_verdict(v, i, views) for i, v in enumerate(views)) + "</ul>"
    scores = tables.scores(views) or missing("No scores: no run was evaluated.")
    claims = tables.claims(views) or missing("No claim was computed: balance.modules.theory.")
    figures, of_modules = _charts(CHARTS, views)
    theory, of_theory = _charts(THEORY, views)
    predictions = predictions_section(views, [run.predictions for run in runs], media=media)
    sections = [
        Section("verdict", "Verdict", f"{verdicts}\n{tables.summary(views)}\n{scores}"),
        Section("figures", "Figures", NO_SCRIPT + figures, before=legend(labels)),
        Section("tasks", "Tasks", tasks),
        Section("predictions", "Predictions", predictions or missing("No predictions: no run was evaluated.")),
        Section("theory", "Theory", theory + claims),
        Section("modules", "Modules", tables.modules(views) or missing("No run has a module table.")),
        Section("data", "Data", tables.data(views) or missing("No run wrote down what it read (data.json).")),
        Section("settings", "Settings", settings_section(views)),
    ]
    count = "One run" if len(views) == 1 else f"{len(views)} runs"
    drawn = [*of_modules, *of_tasks, *of_theory]
    return Page("Balance report", names, f"{count}: {names}.", sections, drawn)


def _verdict(view: RunView, index: int, views: Sequence[RunView]) -> str:
    found = view.verdict
    tone = {BALANCED: "good", UNKNOWN: "unknown"}.get(found.name, "poor")
    mark = swatch(index % len(LIGHT)) if len(views) > 1 else ""
    parts = [
        f"<h3>{mark}{safe(view.label)}</h3>",
        tag("p", found.name[:1].upper() + found.name[1:], class_=f"name {tone}"),
    ]
    if found.kappa is not None and found.std_log_kappa is not None:
        kappa, spread = decimal(found.kappa), decimal(found.std_log_kappa)
        numbers = f"κ {kappa}, std of log κ {spread}, {found.measurements} measurements"
        parts.append(tag("p", numbers, class_="numbers"))
    parts += [tag("p", found.advice), *(tag("p", words) for words in view.mishaps), _of_tasks(view)]
    if view.missing:
        parts.append(missing(f"Missing: {'; '.join(view.missing)}."))
    return f"<li>{''.join(parts)}</li>\n"


def _of_tasks(view: RunView) -> str:
    """What the log and the scores say of the tasks."""
    found = starvation(view.columns)
    said = "".join(tag("p", words) for words in found.sentences) if found is not None else ""
    return said + "".join(tag("p", words) for words in unlearnt(view.tasks))


def _charts(charts: Sequence[Chart], views: Sequence[RunView]) -> tuple[str, list[Plot]]:
    """Markup of figures, with a line in the place of what was not logged; and the figures."""
    body, plots = [], []
    for chart in charts:
        plot = chart.plot(views)
        if plot is None:
            body.append(missing(f"{chart.heading}: not shown, nothing of it was logged."))
        else:
            body.append(plot.markup())
            plots.append(plot)
    return "".join(body), plots
