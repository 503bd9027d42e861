"""The few pieces of HTML that the pages are made of. Every string that comes in is escaped here, once.

Names come from files. Besides what HTML reads as markup, characters that steer (a right-to-left override would turn
round the sentence that a name stands in) are shown as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from html import escape

from equipoise.texts import printable

ABSENT = "–"
_NUMERIC = re.compile(r"(< )?[-+−]?[\d.,]+(e[-+]?\d+)?×?|–|undefined")


def tag(name: str, text: str, **attributes: str) -> str:
    """An element with escaped text. A trailing underscore in an attribute's name is dropped, others become hyphens."""
    return f"<{name}{_attributes(attributes)}>{safe(text)}</{name}>"


def safe(text: str) -> str:
    """Text for an element or for an attribute in double quotes."""
    return escape(printable(text, "\n"))


def short(text: str, most: int = 24) -> str:
    """Text for a figure, where plotly reads HTML: escaped, and cut where it would take the figure's room."""
    shown = printable(text)
    return escape(shown if len(shown) <= most else f"{shown[: most - 1]}…", quote=False)


def cut(text: str, most: int) -> str:
    """The text, or its beginning and how long it is: a page is no place for a megabyte."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters in all)"


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str = "",
    best: Collection[tuple[int, int]] = (),
) -> str:
    """A table whose first column names its rows. Columns of numbers are set flush right.

    Args:
        caption: says what the table is; also names its scrolling frame.
        header: column titles.
        rows: cells as text.
        note: a line under the table.
        best: row and column of the cells that are marked as the best of theirs.
    """
    numeric = [i > 0 and all(_NUMERIC.fullmatch(row[i]) for row in rows) for i in range(len(header))]
    kinds = [' class="number"' if right else "" for right in numeric]
    head = "".join(f'<th scope="col"{kind}>{safe(title)}</th>' for title, kind in zip(header, kinds, strict=True))
    body = "".join(
        f'<tr><th scope="row">{safe(row[0])}</th>'
        + "".join(
            f"<td{kinds[j]}>{_best(cell) if (i, j) in best else safe(cell)}</td>"
            for j, cell in enumerate(row[1:], start=1)
        )
        + "</tr>\n"
        for i, row in enumerate(rows)
    )
    frame = f'<div class="scroll" role="region" tabindex="0" aria-label="{safe(caption)}">'
    below = tag("p", note, class_="note") if note else ""
    return (
        f"{frame}<table><caption>{safe(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>{below}\n"
    )


def swatch(colour: int) -> str:
    """A small square in the colour of a run."""
    return f'<span class="swatch" style="background: var(--series-{colour})" aria-hidden="true"></span>'


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, or a dash."""
    if value is None:
        return ABSENT
    return f"{value:#.{digits}g}".rstrip(".")


def _best(cell: str) -> str:
    return f'<strong>{safe(cell)}</strong><span class="unseen"> (best)</span>'


def _attributes(attributes: dict[str, str]) -> str:
    return "".join(f' {n.rstrip("_").replace("_", "-")}="{safe(value)}"' for n, value in attributes.items())
