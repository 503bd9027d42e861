"""The report of a balance: what the tasks do for each other, the weights that follow, and what they bring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go

from equipoise.report.balance import figures, tables
from equipoise.report.balance.compare import EW, relative
from equipoise.report.balance.verdict import Finding, caveat, findings
from equipoise.report.balance.view import BalanceView, view_balance
from equipoise.report.figures import SMOOTHED
from equipoise.report.markup import tag
from equipoise.report.numbers import number
from equipoise.report.skeleton import NO_SCRIPT, Page, Plot, Section, legend, missing, write_page
from equipoise.report.task_charts import TASK_LOSS, task_table
from equipoise.report.task_figures import PREFIXES, WEIGHT, constant_weights, tasks_of, weights_by_run
from equipoise.report.view import RunView
from equipoise.tasks.plan import STL

Part = tuple[str, list[Plot]]
"""Markup, and the figures in it."""


def build_balance_report(folder: Path, target: Path | None = None) -> Path:
    """Write the report of what `equipoise balance --out FOLDER` made, whole or as far as it has come.

    The same folder gives the same bytes. What is missing is named in the report and is no error.

    Args:
        folder: with `balance.json`, `results.json` and `nodes`, as far as they exist.
        target: the file, written whole or not at all; `report.html` in the folder by default.

    Returns:
        `target`.
    """
    return write_page(target or folder / "report.html", balance_page(folder))


def balance_page(folder: Path) -> Page:
    """The same, not yet written."""
    view = view_balance(folder)
    parts = {
        "tasks": ("What the tasks do for each other", _tasks(view)),
        "weights": ("Weights", _weights(view)),
        "methods": ("Methods", _methods(view)),
        "scores": ("Validation scores", (_scores(view), [])),
        "costs": ("Cost", (tables.costs(view), [])),
        "settings": ("Settings", (_settings(view), [])),
    }
    sections = [Section("verdict", "Verdict", _verdict(view))]
    sections += [Section(name, heading, body) for name, (heading, (body, _)) in parts.items() if body]
    plots = [plot for _, (_, found) in parts.values() for plot in found]
    subtitle = f"{len(view.tasks)} balanced tasks: {', '.join(map(view.called, view.tasks)) or 'not known yet'}."
    return Page("Task balance", view.label, subtitle, sections, plots)


def _verdict(view: BalanceView) -> str:
    cards = "".join(f"<li>{_card(finding)}</li>\n" for finding in findings(view))
    lines = [
        f'<ul class="verdicts">\n{cards}</ul>' if cards else missing("Nothing can be said before the weights exist.")
    ]
    if view.missing:
        lines.append(missing(f"Not there: {'; '.join(view.missing)}."))
    if cards and (words := caveat(view)):
        lines.append(tag("p", words, class_="note"))
    return "\n".join(lines)


def _card(finding: Finding) -> str:
    parts = [tag("h3", finding.topic), tag("p", finding.name, class_=f"name {finding.tone}")]
    if finding.evidence:
        parts.append(tag("p", finding.evidence, class_="numbers"))
    return "".join([*parts, tag("p", finding.advice)])


def _tasks(view: BalanceView) -> Part:
    plots: list[Plot] = []
    lacking: list[str] = []
    names = ", ".join(map(view.called, view.tasks))
    if view.contributions:
        caption = (
            "C (CoTBal, eq. 3): what training on one task's data does for another, a row a giving task; 1 is what a "
            "task's own data does for it, by definition on the diagonal. Blue helps, orange harms; the colours end at "
            "−1 and 1."
        )
        if view.undefined_contributions:
            caption += " Dotted: the task learnt nothing from its own data, nothing can be measured against that."
        width = 9 + 2.9 * len(view.tasks)
        label = f"Map of the contributions of every task to every other, for {names}; a table with the numbers follows"
        plots.append(Plot("contributions", "Contributions", caption, label, figures.contributions(view), width))
    else:
        lacking.append("Contributions: not shown, no balance.json has them.")
    if view.difficulty:
        caption = (
            "D (eq. 9): the share of its score that a task loses when it is trained on its subset and not on all of "
            "its data. Negative: more data made it worse."
        )
        label = f"Bars of the difficulty of {names}; the table of weights has the numbers"
        plots.append(Plot("difficulty", "Difficulty", caption + _flags(view), label, figures.difficulty(view)))
    plots += _score_by_data(view, lacking)
    body = NO_SCRIPT + "".join(plot.markup() for plot in plots) + "".join(map(missing, lacking))
    return body + (tables.contributions(view) if view.contributions else ""), plots


def _score_by_data(view: BalanceView, lacking: list[str]) -> list[Plot]:
    heading = "Score against share of data"
    fraction = number(view.settings.get("mini_fraction"))
    known = figures.data_points(view)
    if fraction is None or not 0 < fraction < 1 or not known:
        lacking.append(f"{heading}: not shown, it needs balance.json with the subsets' share and the probes' scores.")
        return []
    figure = figures.score_by_data(view, fraction)
    if figure is None:
        lacking.append(f"{heading}: not shown, every task scores 0 with all of its data.")
        return []
    runs = "the task alone" if view.settings.get("difficulty") == "precise" else "the task with the others' subsets"
    caption = (
        f"Validation scores with {100 * fraction:.3g} % and with all of a task's data, from {runs} (Figure 1b). A "
        "score V is drawn as 100 (1 + (V − V_all) / |V_all|) %: all tasks end at 100, and a steeper line is a harder "
        "task. Higher is better where scores are negative too."
    )
    zeros = [view.called(task) for task, (_, whole) in known.items() if not whole]
    if zeros:
        caption += f" Not drawn, because the score with all data is 0: {', '.join(zeros)}."
    label = f"Lines of score against share of data for {', '.join(map(view.called, known))}; a table of scores follows"
    return [Plot("score-by-data", heading, caption + _flags(view), label, figure)]


def _weights(view: BalanceView) -> Part:
    if not view.weights:
        return missing("No weights: there is no balance.json that has them."), []
    caption = (
        "λ of each task (eq. 5 to 11); 1 is the ordinary loss. By contribution: more to tasks that help the others and "
        "to tasks that the others do not help. By difficulty: more to tasks that need their whole data. The final "
        "weights mix the two."
    )
    label = f"Bars of the weights of {', '.join(map(view.called, view.tasks))}; a table with the numbers follows"
    plot = Plot("weights-by-task", "Weights by task", caption + _flags(view), label, figures.weights(view))
    return plot.markup() + tables.weights(view), [plot]


def _methods(view: BalanceView) -> Part:
    runs = [_flagged(view, run) for run in view.runs.values()]
    body: list[str] = []
    plots: list[Plot] = []
    if len(runs) > 1:
        body.append(legend(list(view.runs)))
    if view.results:
        markup, plots = _radar(view)
        body += [markup, tables.results(view), _relative(view)]
    else:
        body.append(missing("No test scores yet (results.json)."))
    loss = TASK_LOSS.plot(runs) if runs else None
    if loss is not None:
        plots.append(loss)
        body.append(loss.markup())
    else:
        body.append(missing("Loss by task: not shown, neither the final run nor a compared one has a log of it."))
    tasks = tasks_of(runs)
    moving = [run for run in runs if any(key.startswith(WEIGHT) for key in run.columns)]
    moving = [run for run in moving if constant_weights(run, tasks) is None]
    if moving:
        plots.append(_moving_weights(weights_by_run(moving), [run.label for run in moving]))
        body.append(plots[-1].markup())
    elif runs:
        body.append(missing("Weights over time: not shown, no run here changes its weights (rlw, dwa and igbv1 do)."))
    return "".join(body) + (task_table(runs) if tasks else ""), plots


def _moving_weights(figure: go.Figure, names: list[str]) -> Plot:
    caption = (
        f"λ at each step, a panel a method whose weights move. rlw draws them anew at each step: its lines are means "
        f"over {SMOOTHED} steps. dwa gives more to tasks whose loss falls slowly, igbv1 to tasks whose loss is high "
        "against its beginning."
    )
    label = f"Line chart of task weights against optimizer step, for {', '.join(names)}"
    return Plot("weights-over-time", "Weights over time", caption, label, figure)


def _radar(view: BalanceView) -> tuple[str, list[Plot]]:
    found = relative(view)
    drawn = figures.radar(view, found)
    if drawn is None:
        return missing("Radar of methods: not shown, it needs three tasks with a test score."), []
    figure, centre = drawn
    caption = (
        f"Test scores in percent of {_against(found.baseline)}, an axis a task; the mean of its test sets where it has "
        f"several. Further out is better, and the dotted ring is 100 %. The centre is at {centre:g} %, not at 0. Where "
        "scores are negative, higher is still better: 100 (1 + (V − B) / |B|)."
    )
    if found.undefined:
        caption += f" Without {', '.join(map(view.called, found.undefined))}, where that is 0."
    names = ", ".join(name for name in view.runs if name in found.values)
    label = f"Radar chart of test scores by task, for {names}; a table with the numbers follows"
    plot = Plot("radar", "Methods by task", caption + _flags(view), label, figure)
    return plot.markup(), [plot]


def _relative(view: BalanceView) -> str:
    found = relative(view)
    return tables.relative(view, found, f"Test scores in percent of {_against(found.baseline)}")


def _against(baseline: str | None) -> str:
    names = {STL: "the model trained on that task alone (stl)", EW: "equal weights (ew)"}
    return names.get(baseline or "", "the best method")


def _scores(view: BalanceView) -> str:
    return tables.scores(view) if view.scores else missing("No node has been scored on its validation questions yet.")


def _settings(view: BalanceView) -> str:
    return tables.settings(view) if view.settings else missing("No settings: there is no balance.json that has them.")


def _flagged(view: BalanceView, run: RunView) -> RunView:
    """The run with its tasks called in its log as everywhere on the page."""
    flagged = {prefix + task: prefix + view.called(task) for task in view.degenerate for prefix in PREFIXES}
    columns = {flagged.get(key, key): column for key, column in run.columns.items()}
    return replace(run, columns=columns)


def _flags(view: BalanceView) -> str:
    return f" {tables.STAR}" if view.degenerate else ""
