"""The report of one or several runs, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.report import tables
from equipoise.report.charts import CHARTS, Chart
from equipoise.report.markup import decimal, safe, swatch, tag
from equipoise.report.palette import LIGHT
from equipoise.report.skeleton import NO_SCRIPT, Page, Plot, Section, legend, missing, write_page
from equipoise.report.task_charts import task_section
from equipoise.report.verdict import BALANCED, UNKNOWN
from equipoise.report.view import RunView, view_all
from equipoise.training.run_directory import RunDirectory


def build_report(runs: Sequence[RunDirectory], target: Path) -> Path:
    """Write the report of one or several runs.

    The same runs give the same bytes. Missing files are named in the report and are no error.

    Args:
        runs: in the order in which they are shown.
        target: the file, written whole or not at all.

    Returns:
        `target`.

    Raises:
        RunError: there is no run.
    """
    return write_page(target, report_page(runs))


def report_page(runs: Sequence[RunDirectory]) -> Page:
    """The same, not yet written.

    Raises:
        RunError: there is no run.
    """
    views = view_all(runs)
    labels = [view.label for view in views]
    names = ", ".join(labels)
    plots = {chart.identifier: plot for chart in CHARTS if (plot := chart.plot(views)) is not None}
    tasks, of_tasks = task_section(views)
    verdicts = '<ul class="verdicts">\n' + "".join(_verdict(v, i, views) for i, v in enumerate(views)) + "</ul>"
    scores = tables.scores(views) or missing("No scores: no run was evaluated.")
    claims = tables.claims(views) or missing("No claim was computed: balance.modules.theory.")
    figures = "".join(_figure(chart, plots) for chart in CHARTS[:-1])
    sections = [
        Section("verdict", "Verdict", f"{verdicts}\n{tables.summary(views)}\n{scores}"),
        Section("figures", "Figures", NO_SCRIPT + figures, before=legend(labels)),
        Section("tasks", "Tasks", tasks),
        Section("theory", "Theory", _figure(CHARTS[-1], plots) + claims),
        Section("modules", "Modules", tables.modules(views) or missing("No run has a module table.")),
        Section("data", "Data", tables.data(views) or missing("No run wrote down what it read (data.json).")),
        Section("settings", "Settings", "".join(_settings(view) for view in views)),
    ]
    count = "One run" if len(views) == 1 else f"{len(views)} runs"
    drawn = [*(plot for name, plot in plots.items() if name != CHARTS[-1].identifier), *of_tasks]
    drawn += [plots[name] for name in (CHARTS[-1].identifier,) if name in plots]
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
    parts.append(tag("p", found.advice))
    if view.missing:
        parts.append(missing(f"Missing: {'; '.join(view.missing)}."))
    return f"<li>{''.join(parts)}</li>\n"


def _figure(chart: Chart, plots: Mapping[str, Plot]) -> str:
    if chart.identifier not in plots:
        return missing(f"{chart.heading}: not shown, nothing of it was logged.")
    return plots[chart.identifier].markup()


def _settings(view: RunView) -> str:
    if view.recipe is None:
        return missing(f"{view.label}: no recipe.yaml.")
    return f"<details>{tag('summary', f'{view.label}: resolved recipe')}{tag('pre', view.recipe)}</details>\n"
