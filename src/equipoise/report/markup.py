"""The few pieces of HTML that the page is made of. Every string that comes in is escaped here, once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

ABSENT = "–"
_NUMERIC = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?×?|–")


def tag(name: str, text: str, **attributes: str) -> str:
    """An element with escaped text. A trailing underscore in an attribute's name is dropped, others become hyphens."""
    return f"<{name}{_attributes(attributes)}>{escape(text)}</{name}>"


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A table whose first column names its rows. Columns of numbers are set flush right.

    Args:
        caption: says what the table is; also names its scrolling frame.
        header: column titles.
        rows: cells as text.
        note: a line under the table.
    """
    numeric = [i > 0 and all(_NUMERIC.fullmatch(row[i]) for row in rows) for i in range(len(header))]
    kinds = [' class="number"' if right else "" for right in numeric]
    head = "".join(f'<th scope="col"{kind}>{escape(title)}</th>' for title, kind in zip(header, kinds, strict=True))
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
        + "</tr>\n"
        for row in rows
    )
    frame = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
    below = tag("p", note, class_="note") if note else ""
    return (
        f"{frame}<table><caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
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


def _attributes(attributes: dict[str, str]) -> str:
    return "".join(f' {n.rstrip("_").replace("_", "-")}="{escape(value)}"' for n, value in attributes.items())
