"""docs/experiments.md: its tables quote what the commands print of the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cogapp import Cog

DOCS = Path(__file__).parents[2] / "docs"


def test_every_interval_is_in_a_table_that_a_command_prints(module: Callable[[str], ModuleType]) -> None:
    commit, cotbal, better = (module(name) for name in ("commit", "cotbal", "better"))
    before = (DOCS / "experiments-commit.md").read_text(encoding="utf-8")
    printed = [commit.page(commit.Results(commit.RECORDS / "commit"), before), cotbal.summary(cotbal.RECORDED)]
    assert printed[0] == before
    assert printed[1] == (DOCS / "experiments-cotbal.md").read_text(encoding="utf-8")
    printed.append(better.summary(better.RUNS))
    assert printed[2] == (DOCS / "experiments-better.md").read_text(encoding="utf-8")
    known = {cell for text in printed for cell in _cells(text)}
    quoted = [
        cell for cell in _cells((DOCS / "experiments.md").read_text(encoding="utf-8")) if ", " in cell and "[" in cell
    ]
    assert len(quoted) > 100
    assert [cell for cell in quoted if cell not in known] == []


def test_quoted_tables_are_those_of_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    assert Cog().main(["cog", "--check", "-P", "docs/experiments.md"]) == 0


@pytest.mark.parametrize("title", ["Test", "No such"])
def test_a_title_that_is_not_one_table_s_is_refused(module: Callable[[str], ModuleType], title: str) -> None:
    with pytest.raises(ValueError, match=f"titles that begin with '{title}'"):
        module("quoted").quote("commit", title)


def test_a_part_that_a_page_does_not_have_is_refused(module: Callable[[str], ModuleType]) -> None:
    with pytest.raises(ValueError, match="has no tables of differences below 'What a score is worth'"):
        module("quoted").quote("commit/controls", "What a score is worth", part="differences")


def _cells(text: str) -> Iterator[str]:
    """Of all tables, without what makes them bold."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield from (cell.strip().strip("*") for cell in line.split("|"))
