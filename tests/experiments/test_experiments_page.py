"""docs/experiments.md: its tables quote what the commands print of the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def test_every_interval_is_in_a_table_that_a_command_prints(module: Callable[[str], ModuleType]) -> None:
    commit, cotbal, better = (module(name) for name in ("commit", "cotbal", "better"))
    before = (DOCS / "experiments-commit.md").read_text(encoding="utf-8")
    printed = [commit.page(commit.Results(commit.RECORDS / "commit"), before), cotbal.summary(cotbal.RECORDED)]
    assert printed[0] == before
    assert printed[1] == (DOCS / "experiments-cotbal.md").read_text(encoding="utf-8")
    printed.append(better.summary(better.RUNS))
    known = {cell for text in printed for cell in _cells(text)}
    quoted = [
        cell for cell in _cells((DOCS / "experiments.md").read_text(encoding="utf-8")) if ", " in cell and "[" in cell
    ]
    assert len(quoted) > 100
    assert [cell for cell in quoted if cell not in known] == []


def _cells(text: str) -> Iterator[str]:
    """Of all tables, without what makes them bold."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield from (cell.strip().strip("*") for cell in line.split("|"))
