"""The report: one HTML file that opens anywhere, for ever, without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from equipoise.report import tables
from equipoise.report.charts import CHARTS, Chart
from equipoise.report.markup import decimal, swatch, tag
from equipoise.report.palette import LIGHT
from equipoise.report.script import JAVASCRIPT
from equipoise.report.style import CSS
from equipoise.report.verdict import BALANCED, UNKNOWN
from equipoise.report.view import RunView, view_all
from equipoise.training.run_directory import RunDirectory, write_atomically

# The policy is the browser's own guarantee that the page fetches nothing, whatever a run directory holds.
_PAGE = Template("""<!doctype html>
<html lang="en" data-series="$series">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data: blob:; form-action 'none'; base-uri 'none'">
<meta name="generator" content="$generator">
<title>$title</title>
<style>$css</style>
</head>
<body>
<header>
<h1>$heading</h1>
<p>$subtitle</p>
</header>
<main>
<section aria-labelledby="verdict"><h2 id="verdict">Verdict</h2>
$verdicts
$summary
$scores
</section>
<section aria-labelledby="figures"><h2 id="figures">Figures</h2>
$legend
<noscript><p class="missing">The figures need JavaScript; it is inside this file.</p></noscript>
$figures
</section>
<section aria-labelledby="theory"><h2 id="theory">Theory</h2>
$theory
</section>
<section aria-labelledby="modules"><h2 id="modules">Modules</h2>
$modules
</section>
<section aria-labelledby="data"><h2 id="data">Data</h2>
$data
</section>
<section aria-labelledby="settings"><h2 id="settings">Settings</h2>
$settings
</section>
</main>
<script type="application/json" id="charts">$charts</script>
<script>$plotly</script>
<script>$script</script>
</body>
</html>
""")


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
    views = view_all(runs)
    shown = [chart for chart in CHARTS if len(chart.without(views)) < len(views)]
    names = ", ".join(view.label for view in views)
    count = "One run" if len(views) == 1 else f"{len(views)} runs"
    write_atomically(
        target,
        _PAGE.substitute(
            series=len(LIGHT),
            generator=escape(_generator()),
            title=escape(f"Balance report: {names}"),
            heading=escape("Balance report"),
            subtitle=escape(f"{count}: {names}. Written by {_generator()}."),
            css=CSS,
            verdicts='<ul class="verdicts">\n' + "".join(_verdict(v, i, views) for i, v in enumerate(views)) + "</ul>",
            summary=tables.summary(views),
            scores=tables.scores(views) or tag("p", "No scores: no run was evaluated.", class_="missing"),
            legend=_legend(views),
            figures="".join(_figure(chart, views) for chart in CHARTS[:-1]),
            theory=_figure(CHARTS[-1], views)
            + (tables.claims(views) or tag("p", "No claim was computed: balance.modules.theory.", class_="missing")),
            modules=tables.modules(views) or tag("p", "No run has a module table.", class_="missing"),
            data=tables.data(views) or tag("p", "No run wrote down what it read (data.json).", class_="missing"),
            settings="".join(_settings(view) for view in views),
            charts=_specifications(shown, views),
            plotly=get_plotlyjs(),
            script=JAVASCRIPT,
        ),
    )
    return target


def _verdict(view: RunView, index: int, views: Sequence[RunView]) -> str:
    found = view.verdict
    tone = {BALANCED: "good", UNKNOWN: "unknown"}.get(found.name, "poor")
    mark = swatch(index % len(LIGHT)) if len(views) > 1 else ""
    parts = [
        f"<h3>{mark}{escape(view.label)}</h3>",
        tag("p", found.name[:1].upper() + found.name[1:], class_=f"name {tone}"),
    ]
    if found.kappa is not None and found.std_log_kappa is not None:
        kappa, spread = decimal(found.kappa), decimal(found.std_log_kappa)
        numbers = f"κ {kappa}, std of log κ {spread}, {found.measurements} measurements"
        parts.append(tag("p", numbers, class_="numbers"))
    parts.append(tag("p", found.advice))
    if view.missing:
        parts.append(tag("p", f"Missing: {'; '.join(view.missing)}.", class_="missing"))
    return f"<li>{''.join(parts)}</li>\n"


def _legend(views: Sequence[RunView]) -> str:
    """One legend for all figures, with a box to switch each run off; none for a single run."""
    if len(views) == 1:
        return ""
    boxes = "".join(
        f'<label><input type="checkbox" value="{index}" checked autocomplete="off">{swatch(index % len(LIGHT))}'
        f"{escape(view.label)}</label>\n"
        for index, view in enumerate(views)
    )
    return f'<fieldset class="legend"><legend>Runs</legend>\n{boxes}</fieldset>'


def _figure(chart: Chart, views: Sequence[RunView]) -> str:
    without = chart.without(views)
    if len(without) == len(views):
        return tag("p", f"{chart.heading}: not shown, nothing of it was logged.", class_="missing")
    names = ", ".join(view.label for view in views if view.label not in without)
    caption = chart.caption + (f" Nothing was logged by {', '.join(without)}." if without else "")
    label = f"Line chart of {chart.heading.lower()} against optimizer step, for {names}"
    return (
        f"<figure>{tag('h3', chart.heading)}"
        f'<div class="plot" id="{chart.identifier}" role="img" aria-label="{escape(label)}"></div>'
        f"{tag('figcaption', caption)}</figure>\n"
    )


def _settings(view: RunView) -> str:
    if view.recipe is None:
        return tag("p", f"{view.label}: no recipe.yaml.", class_="missing")
    return f"<details>{tag('summary', f'{view.label}: resolved recipe')}{tag('pre', view.recipe)}</details>\n"


def _specifications(charts: Sequence[Chart], views: Sequence[RunView]) -> str:
    """The figures as JSON that can stand inside a script element: without a `<`, no end tag can occur in it."""
    found = []
    for chart in charts:
        figure = chart.build(views)
        if len(views) > 1:
            figure.update_layout(showlegend=False)  # the page has one for all
        found.append({"id": chart.identifier, **json.loads(figure.to_json() or "{}")})
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")


def _generator() -> str:
    try:
        return f"equipoise {version('equipoise')}"
    except PackageNotFoundError:  # run from a source tree
        return "equipoise"
