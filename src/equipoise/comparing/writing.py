"""A comparison's tables in files that people paste elsewhere: Markdown, LaTeX (booktabs), CSV. Pure functions.

Names come from users and from files: each format has its own escapes, so that a name stays a name.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from equipoise.comparing.summary import Summary
from equipoise.comparing.tables import Table
from equipoise.comparing.verdict import Verdict
from equipoise.texts import printable

_NUMBER = re.compile(r"[-+−]?[\d.,]+(e[-+]?\d+)?×?|[–<] ?[\d.]*|\[[^\]]*\]|[-+−]?[\d.]+(e[-+]?\d+)? \[[^\]]*\]")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    # After the end of a row, brackets and stars are arguments of it.
    "[": "{[}", "]": "{]}", "*": "{*}",
    "−": "$-$", "×": r"$\times$", "–": r"\textendash{}", "±": r"$\pm$",
}  # fmt: skip
_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{letter: f"\\{letter}" for letter in "\\`*_{}[]#!|~$"}}
TABLES = ("scores", "training", "deltas")
COLUMNS = (
    "table", "method", "task", "quantity", "mean", "low", "high", "seeds", "against", "kind", "difference",
    "difference_low", "difference_high", "p", "p_holm",
)  # fmt: skip


def markdown(tables: Sequence[Table], found: Sequence[Verdict], caveat: str) -> str:
    """A section a table, and the verdicts before them."""
    parts = [
        "# Comparison",
        *(
            f"- **{escape_markdown(one.method)}**: {escape_markdown(one.name)}. {escape_markdown(one.sentence)}"
            for one in found
        ),
    ]
    parts = [parts[0], "\n".join(parts[1:]), escape_markdown(caveat)]
    for table in tables:
        right = [_numeric(table, place) for place in range(len(table.header))]
        lines = [
            _row([escape_markdown(cell) for cell in table.header]),
            _row(["---:" if flag else "---" for flag in right]),
            *(_row([escape_markdown(cell) for cell in row]) for row in table.rows),
        ]
        parts += [f"## {escape_markdown(table.caption)}", "\n".join(lines), escape_markdown(table.note)]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(tables: Sequence[Table]) -> str:
    r"""A `table` each, for a document that says `\usepackage{booktabs}` and, for wide ones, `\usepackage{graphicx}`."""
    parts = ["% Needs \\usepackage{booktabs,graphicx,textcomp} and T1 fonts (\\usepackage[T1]{fontenc})."]
    for table in tables:
        columns = "".join("r" if _numeric(table, place) else "l" for place in range(len(table.header)))
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _tex_row(table.header),
            r"\midrule",
            *(_tex_row(row) for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}}",
            *([rf"\par\smallskip\footnotesize {escape_latex(table.note)}"] if table.note else []),
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def comma_separated(summary: Summary, seeds: Sequence[int]) -> str:
    """A line a cell of all tables, with every digit and every seed's own value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"seed_{seed}" for seed in seeds)])
    for name in TABLES:
        for cell in getattr(summary, name):
            mean, against = cell.estimate, cell.difference
            compared: list[object] = [None] * 7
            if against is not None:
                kind = "ratio" if cell.quantity.ratio else "difference"
                baseline = escape_csv(summary.baseline)
                compared = [baseline, kind, against.mean, against.low, against.high, against.p, cell.p_holm]
            own = [
                name,
                *map(escape_csv, (cell.method, cell.quantity.task, cell.quantity.name)),
                mean.mean,
                mean.low,
                mean.high,
                mean.seeds,
            ]
            writer.writerow([*own, *compared, *(cell.values.get(seed) for seed in seeds)])
    return text.getvalue()


def escape_csv(text: str | None) -> str:
    """Text that no spreadsheet takes for a formula: one that begins like one has an apostrophe before it."""
    plain = printable(text or "")
    return f"'{plain}" if plain.lstrip().startswith(("=", "+", "-", "@")) else plain


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in printable(text))
    return re.sub("-(?=-)", "-{}", escaped)  # two would become a dash


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too."""
    return "".join(_MARKDOWN.get(letter, letter) for letter in printable(text))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _tex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(escape_latex, cells))} \\\\"


def _numeric(table: Table, place: int) -> bool:
    return place > 0 and all(_NUMBER.fullmatch(row[place]) for row in table.rows)
