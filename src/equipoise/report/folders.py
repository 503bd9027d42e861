"""What `equipoise report` is pointed at: run directories, or one balance, or one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipoise.errors import RunError
from equipoise.report.balance.page import balance_page
from equipoise.report.balance.view import is_balance
from equipoise.report.comparison.page import comparison_page
from equipoise.report.comparison.view import is_comparison
from equipoise.report.page import report_page
from equipoise.report.skeleton import Page, write_page
from equipoise.training.run_directory import RunDirectory

ALLOWED = "allowed are run directories, or one folder that `equipoise balance --out` or `compare --out` made"


def report_on(folders: Sequence[Path], target: Path | None = None, media: bool = True) -> Path:
    """Write the report of one or several runs, of a balance, or of a comparison.

    Args:
        folders: in the order in which they are shown.
        target: the file; by default `report.html` in the first folder.
        media: whether the predictions' pictures and clips are in it.

    Returns:
        The file.

    Raises:
        RunError: a folder is none of these, or a balance or comparison is not alone.
    """
    page = page_on(folders, media)
    return write_page(target or folders[0] / "report.html", page)


def page_on(folders: Sequence[Path], media: bool = True) -> Page:
    """The same, not yet written.

    Raises:
        RunError: a folder is none of these, or a balance or comparison is not alone.
    """
    if len(folders) == 1 and is_comparison(folders[0]):
        return comparison_page(folders[0])
    for folder in folders:
        if is_comparison(folder):
            raise RunError(f"{folder} is a comparison and has a report of its own; {ALLOWED}")
        run = RunDirectory(folder)
        # A Trainer given to attach() leaves a log without a recipe.
        if not (is_balance(folder) or run.recipe_file.is_file() or run.metrics_file.is_file()):
            raise RunError(f"{folder} has no recipe.yaml, no metrics.jsonl, no balance.json and no nodes; {ALLOWED}")
    balances = [folder for folder in folders if is_balance(folder)]
    if not balances:
        if not folders:
            raise RunError("there is no run to report on")
        return report_page([RunDirectory(folder) for folder in folders], media)
    if len(folders) > 1:
        raise RunError(
            f"{balances[0]} is a balance and has a report of its own; found {len(folders)} folders; {ALLOWED}"
        )
    return balance_page(balances[0])
