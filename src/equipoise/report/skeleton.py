"""What every report page is made of: one HTML file that opens anywhere, for ever, without a network.

A page is a heading, sections of markup, and figures as JSON that the script draws. What the sections say is not known
here; whoever makes them has escaped every string with `markup`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from equipoise.report.markup import safe, swatch, tag
from equipoise.report.palette import LIGHT
from equipoise.report.script import JAVASCRIPT
from equipoise.report.style import CSS
from equipoise.training.run_directory import write_atomically

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; media-src data:; "
    "form-action 'none'; base-uri 'none'"
)
"""The browser's own guarantee that the page fetches nothing, whatever a folder holds."""
LIVE_POLICY = f"{POLICY}; connect-src 'self'"
"""Of a served page, which asks its server for news."""

_PAGE = Template("""<!doctype html>
<html lang="en" data-series="$series">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="generator" content="$generator">
<title>$title</title>
<style>$css</style>
</head>
<body>
<header>
<h1>$heading</h1>
<p>$subtitle</p>
$above</header>
<main>
$sections</main>
<script type="application/json" id="charts">$charts</script>
$before<script>$plotly</script>
<script>$script</script>
</body>
</html>
""")

NO_SCRIPT = '<noscript><p class="missing">The figures need JavaScript; it is inside this file.</p></noscript>\n'


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        identifier: of its heading's element.
        heading: its title.
        body: markup.
        before: markup that stands before it, where what sticks to the window's top stays until the page's end.
    """

    identifier: str
    heading: str
    body: str
    before: str = ""


@dataclass(frozen=True)
class Plot:
    """One figure with its words.

    Attributes:
        identifier: of its element in the page.
        heading: its title.
        caption: what is drawn and how to read it.
        label: what a screen reader says in its place.
        figure: what is drawn.
        width: in rem, below which a narrow window scrolls it rather than squeeze it; 0 squeezes.
    """

    identifier: str
    heading: str
    caption: str
    label: str
    figure: go.Figure
    width: float = 0

    def markup(self) -> str:
        """Its place in the page; the script draws into it."""
        least = f' style="min-width: {self.width:g}rem"' if self.width else ""
        plot = (
            f'<div class="plot" id="{self.identifier}" role="img" aria-label="{safe(self.label)}"{least}></div>'
        )  # fmt: skip
        if self.width:
            frame = f'<div class="frame" role="region" tabindex="0" aria-label="{safe(self.heading)}">'
            plot = f"{frame}{plot}</div>"
        return f"<figure>{tag('h3', self.heading)}{plot}{tag('figcaption', self.caption)}</figure>\n"


@dataclass(frozen=True)
class LivePart:
    """What a served page has besides.

    Attributes:
        above: markup under the heading.
        data: a script element that holds JSON.
        script: run before the figures are drawn.
    """

    above: str
    data: str
    script: str


@dataclass(frozen=True)
class Page:
    """A whole page, not yet written down.

    Attributes:
        heading, names: its title is both.
        subtitle: a sentence.
        sections: in order. Their bodies hold the markup of every plot.
        plots: in order.
    """

    heading: str
    names: str
    subtitle: str
    sections: Sequence[Section]
    plots: Sequence[Plot]

    @property
    def title(self) -> str:
        """What the window is called."""
        return f"{self.heading}: {self.names}"

    @property
    def whole_subtitle(self) -> str:
        """What stands under its heading."""
        return f"{self.subtitle} Written by {_generator()}."

    def body(self) -> str:
        """The markup of its sections, and before them where they are."""
        return _contents(self.sections) + "".join(
            f'{part.before}<section aria-labelledby="{part.identifier}">'
            f'<h2 id="{part.identifier}">{safe(part.heading)}</h2>\n{part.body}\n</section>\n'
            for part in self.sections
        )

    def charts(self) -> str:
        """Its figures as JSON that can stand inside a script element: without a `<`, no end tag can occur in it."""
        found = [{"id": plot.identifier, **json.loads(plot.figure.to_json() or "{}")} for plot in self.plots]
        return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")

    def text(self, live: LivePart | None = None) -> str:
        """The file's content; the same page gives the same text.

        Args:
            live: what a page has that is served while its run goes on; a file has nothing of it.
        """
        return _PAGE.substitute(
            policy=LIVE_POLICY if live else POLICY,
            above=live.above if live else "",
            before=f"{live.data}<script>{live.script}</script>\n" if live else "",
            series=len(LIGHT),
            generator=safe(_generator()),
            title=safe(self.title),
            heading=safe(self.heading),
            subtitle=safe(self.whole_subtitle),
            css=CSS,
            sections=self.body(),
            charts=self.charts(),
            plotly=get_plotlyjs(),
            script=JAVASCRIPT,
        )


def write_page(target: Path, page: Page) -> Path:
    """Write a page whole or not at all.

    Returns:
        `target`.
    """
    write_atomically(target, page.text())
    return target


def legend(labels: Sequence[str], word: str = "Runs") -> str:
    """One legend for all figures, with a box to switch each of them off; none for a single one.

    Args:
        labels: of runs, or of what else is drawn.
        word: what they are.
    """
    if len(labels) < 2:
        return ""
    boxes = "".join(
        f'<label><input type="checkbox" value="{index}" checked autocomplete="off">{swatch(index % len(LIGHT))}'
        f"{safe(label)}</label>\n"
        for index, label in enumerate(labels)
    )
    return f'<fieldset class="legend"><legend>{safe(word)}</legend>\n{boxes}</fieldset>'


def missing(words: str) -> str:
    """A line in the place of what cannot be shown."""
    return tag("p", words, class_="missing")


def _contents(sections: Sequence[Section]) -> str:
    """Where the page's parts are."""
    links = "".join(f'<a href="#{part.identifier}">{safe(part.heading)}</a>\n' for part in sections)
    return f'<nav aria-label="Parts of this page">\n{links}</nav>\n'


def _generator() -> str:
    try:
        return f"equipoise {version('equipoise')}"
    except PackageNotFoundError:  # run from a source tree
        return "equipoise"
