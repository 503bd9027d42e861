"""Tables that a page quotes of the pages of all tables; Cog keeps them as these have them.

    python -m cogapp -rP docs/experiments.md        # after a `summary`

The page says what it quotes in comments that no reader sees, with the calls of `quote`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

DOCS = Path(__file__).parents[1] / "docs"
PARTS = ("means", "differences")


def quote(page: str, title: str, *, part: Literal["", "means", "differences"] = "", name: str = "") -> None:
    """Print a quantity's tables, for Cog to take.

    Args:
        page: `commit`, `cotbal` or `better`, and a section of it after a slash where it has some.
        title: how the tables' title begins; empty for those of a section without one.
        part: the methods' means, or their differences to the first; both where it is not said.
        name: goes into the tables' first cell, which says `method` on the page.

    Raises:
        ValueError: the page has no such title there, or several, or no such tables below it.
    """
    found = _tables(page, title)
    chosen = [table for table, kind in zip(found, PARTS, strict=False) if part in ("", kind)] if title else found
    if not chosen:
        raise ValueError(f"{page} has no tables{part and f' of {part}'} below {title!r}")
    print("\n" + "\n\n".join(_named(table, name) for table in chosen) + "\n")


def _tables(page: str, title: str) -> list[str]:
    name, _, section = page.partition("/")
    text = (DOCS / f"experiments-{name}.md").read_text(encoding="utf-8")
    if section:
        text = "".join(re.findall(rf"^### {re.escape(section)}\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))
    blocks = text.strip().split("\n\n")
    starts = [index for index, block in enumerate(blocks) if block.startswith(f"**{title}")] if title else [-1]
    if len(starts) != 1:
        raise ValueError(f"{len(starts)} tables of {page} have titles that begin with {title!r}; name one")
    after = blocks[starts[0] + 1 :]
    end = next((index for index, block in enumerate(after) if not block.startswith("|")), len(after))
    return after[:end]


def _named(table: str, name: str) -> str:
    if not name:
        return table
    method = table.replace("| method |", f"| {name} |", 1)
    return method.replace("| against `", f"| {name}, against `", 1)
