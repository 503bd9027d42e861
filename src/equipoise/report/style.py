"""The report's style sheet: a printed page's restraint on a screen, light or dark as the reader's system is."""

from __future__ import annotations

from equipoise.report.palette import DARK, HARM_DARK, HARM_LIGHT, HELP_DARK, HELP_LIGHT, LIGHT


def _variables(colours: dict[str, str], series: tuple[str, ...]) -> str:
    named = {**colours, **{f"series-{index}": value for index, value in enumerate(series)}}
    return " ".join(f"--{name}: {value};" for name, value in named.items())


_LIGHT = _variables(
    {
        "page": "#ffffff", "ink": "#1f2428", "quiet": "#59626b", "rule": "#d5dade", "grid": "#e4e7ea",
        "panel": "#f6f7f8", "line": "#808890", "good": "#00734f", "poor": "#b34700", "unknown": "#59626b",
        "harm": HARM_LIGHT, "help": HELP_LIGHT,
    },
    LIGHT,
)  # fmt: skip
_DARK = _variables(
    {
        "page": "#15181b", "ink": "#e3e6e9", "quiet": "#a0a9b2", "rule": "#343a40", "grid": "#2a2f34",
        "panel": "#1c2024", "line": "#7d868f", "good": "#4fd1a8", "poor": "#f5995a", "unknown": "#a0a9b2",
        "harm": HARM_DARK, "help": HELP_DARK,
    },
    DARK,
)  # fmt: skip

CSS = (
    f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root:not(.on-paper) {{ {_DARK} }} }}
"""
    + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 3rem 0 1rem; padding-bottom: .3rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0; font-weight: 600; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 46rem; }
header p, .note, figcaption, .missing { color: var(--quiet); font-size: .9rem; }
.note { margin: .5rem 0 0; max-width: 52rem; }

.verdicts { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.verdicts > li { border: 1px solid var(--rule); border-radius: 6px; background: var(--panel); padding: .9rem 1.1rem; }
.verdicts .name { font-size: 1.25rem; font-weight: 600; margin: .5rem 0 .1rem; line-height: 1.3;
  overflow-wrap: anywhere; }
.name.good { color: var(--good); } .name.poor { color: var(--poor); } .name.unknown { color: var(--unknown); }
.verdicts .numbers { color: var(--quiet); font-size: .9rem; margin: 0 0 .5rem; }
.verdicts .missing { border-top: 1px solid var(--rule); padding-top: .5rem; margin: .7rem 0 0; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .45em; }

.scroll { overflow-x: auto; margin-top: 1.75rem; position: relative; /* holds what is unseen */ }
.frame { overflow-x: auto; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
caption { text-align: left; font-weight: 600; padding-bottom: .45rem; white-space: nowrap; }
th, td { text-align: left; padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--quiet); font-weight: 500; vertical-align: bottom; border-bottom-color: var(--line); }
tbody th { font-weight: 500; min-width: 7.5rem; overflow-wrap: anywhere; }
.number { text-align: right; }
td { white-space: nowrap; }

.legend { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin: 1rem 0 0;
  padding: .55rem 0; border: 0; background: var(--page); border-bottom: 1px solid var(--rule); font-size: .9rem; }
.legend legend { float: left; padding: 0; margin-right: 1.3rem; color: var(--quiet); }
.legend label { cursor: pointer; overflow-wrap: anywhere; }
.legend input { accent-color: var(--quiet); margin: 0 .45em 0 0; vertical-align: -.1em; }

figure { margin: 1.75rem 0 2.5rem; }
figure h3 { margin-bottom: .2rem; }
figcaption { margin-top: .2rem; max-width: 52rem; }
.plot { width: 100%; }
details { margin: .6rem 0; }
summary { cursor: pointer; font-weight: 500; overflow-wrap: anywhere; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: .9rem 1.1rem;
  overflow-x: auto; font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
a { color: inherit; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin-top: .9rem; font-size: .9rem; }

.controls { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem 1.2rem; margin: 0 0 1rem;
  font-size: .9rem; }
button, select, input[type=search] { font: inherit; color: var(--ink); background: var(--page);
  border: 1px solid var(--line); border-radius: 4px; padding: .25rem .6rem; max-width: 100%; }
button { cursor: pointer; }
button:hover { background: var(--panel); }
button[aria-pressed=true] { background: var(--ink); color: var(--page); border-color: var(--ink); }
.controls button + button { margin-left: .3rem; }
.more { margin-top: .8rem; font-size: .9rem; }
.task { margin-top: 1.2rem; }
.task + .task { margin-top: 2rem; }
.cards { list-style: none; margin: .8rem 0 0; padding: 0; }
.cards > li { display: flex; flex-wrap: wrap; gap: .6rem 1.3rem; padding: 1rem 0; border-top: 1px solid var(--rule); }
.media { flex: 0 1 14rem; display: flex; flex-direction: column; gap: .5rem; align-items: flex-start; }
.media img { width: 100%; max-height: 14rem; object-fit: contain; object-position: left top; }
.media audio { width: 100%; min-width: 12rem; }
.media .missing { margin: 0; overflow-wrap: anywhere; }
.words { flex: 1 1 18rem; min-width: 0; font-size: .92rem; }
h4 { margin: 0 0 .35rem; font-size: .85rem; font-weight: 500; color: var(--quiet); overflow-wrap: anywhere; }
dl { margin: 0; }
dl > div { display: grid; grid-template-columns: minmax(6rem, 9.5rem) minmax(0, 1fr); column-gap: 1rem; }
dl > div + div { margin-top: .3rem; }
dt { color: var(--quiet); overflow-wrap: anywhere; }
dd { grid-column: 2; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.score { display: block; font-size: .85em; font-variant-numeric: tabular-nums; color: var(--ink); }
.flaws { margin: .3rem 0 0; padding-left: 1.2rem; font-size: .9rem; overflow-wrap: anywhere; }
[hidden] { display: none !important; }
:focus-visible { outline: 2px solid var(--series-0); outline-offset: 2px; }

@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll, .frame { overflow: visible; }
  .legend { position: static; } .legend input, .modebar, .controls, .more, nav { display: none !important; }
  figure, .verdicts > li, .cards > li, tr { break-inside: avoid; }
  h2, h3, h4, caption { break-after: avoid; }
  pre { white-space: pre-wrap; }
}
"""
)
