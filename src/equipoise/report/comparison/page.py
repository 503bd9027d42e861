"""The report of a comparison: methods by seeds, what the differences are worth, and how the runs got there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipoise.comparing import tables
from equipoise.comparing.tables import Table
from equipoise.comparing.verdict import BETTER, MIXED, WORSE, Verdict, caveat, verdicts
from equipoise.report.comparison import charts
from equipoise.report.comparison.view import ComparisonView, view_comparison
from equipoise.report.markup import swatch, table, tag
from equipoise.report.palette import LIGHT
from equipoise.report.skeleton import NO_SCRIPT, Page, Plot, Section, legend, missing, write_page

TONES = {BETTER: "good", WORSE: "poor", MIXED: "poor"}


def build_comparison_report(folder: Path, target: Path | None = None) -> Path:
    """Write the report of what `equipoise compare --out FOLDER` made, whole or as far as it has come.

    The same folder gives the same bytes. What is missing is named in the report and is no error.

    Args:
        folder: with `comparison.json` and `nodes`, as far as they exist.
        target: the file, written whole or not at all; `report.html` in the folder by default.

    Returns:
        `target`.
    """
    return write_page(target or folder / "report.html", comparison_page(folder))


def comparison_page(folder: Path) -> Page:
    """The same, not yet written."""
    view = view_comparison(folder)
    summary = view.summary
    scores, learning = charts.of_scores(view), charts.of_learning(view)
    modules, tasks = charts.of_modules(view), charts.of_tasks(view)
    by_task = _table(tables.against(summary.scores, "Scores by task and method", summary.baseline))
    training = _table(tables.against(summary.training, "Training by method", summary.baseline, tables.RATIOS))
    parts: list[tuple[str, str, Sequence[Plot], str]] = [
        ("scores-of-methods", "Scores", scores, by_task or missing("No scores yet.")),
        ("learning", "Learning", learning, training),
        ("modules", "Balance between modules", modules, "" if modules else missing("No log has anything of it.")),
        ("tasks", "Tasks", tasks, ""),
    ]
    sections = [Section("verdict", "Verdict", _verdict(view) + _table(tables.overview(summary, view.settings)))]
    drawn = [part for part in parts if part[2] or part[3]]
    for place, (name, heading, plots, further) in enumerate(drawn):
        body = (NO_SCRIPT if plots else "") + "".join(plot.markup() for plot in plots) + further
        sections.append(Section(name, heading, body, before=_legend(view) if place == 0 else ""))
    settings = _table(tables.differing(view.settings))
    if settings:
        sections.append(Section("settings", "Settings", settings))
    subtitle = f"{_count(len(view.methods), 'method')} with {_count(len(view.seeds), 'seed')} each"
    subtitle += f": {', '.join(view.methods)}." if view.methods else "."
    every = [plot for _, _, plots, _ in drawn for plot in plots]
    return Page("Comparison", view.label, subtitle, sections, every)


def _verdict(view: ComparisonView) -> str:
    cards = "".join(f"<li>{_card(view, one)}</li>\n" for one in verdicts(view.summary))
    lines = [f'<ul class="verdicts">\n{cards}</ul>' if cards else missing(_nothing(view))]
    if view.missing:
        lines.append(missing(f"Not there: {'; '.join(view.missing)}."))
    if cards and (words := caveat(view.summary)):
        lines.append(tag("p", words, class_="note"))
    return "\n".join(lines)


def _nothing(view: ComparisonView) -> str:
    if len(view.methods) == 1 and view.summary.methods:
        return f"One method, {view.methods[0]}: nothing to compare it with."
    return "Nothing can be said before two methods have been run with the same seed."


def _card(view: ComparisonView, found: Verdict) -> str:
    mark = swatch(view.methods.index(found.method) % len(LIGHT))
    name = found.name[:1].upper() + found.name[1:]
    return "".join(
        [
            "<h3>", mark, tag("span", found.method), "</h3>",
            tag("p", name, class_=f"name {TONES.get(found.kind, 'unknown')}"),
            tag("p", found.sentence),
        ]
    )  # fmt: skip


def _legend(view: ComparisonView) -> str:
    return legend(list(view.methods[: charts.figures.MOST]), "Methods")


def _table(found: Table) -> str:
    return table(found.caption, found.header, found.rows, found.note) if found.rows else ""


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
