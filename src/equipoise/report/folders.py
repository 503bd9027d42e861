"""What `equipoise report` is pointed at: run directories, or one balance, or one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipoise.errors import RunError
from equipoise.report.balance.page import build_balance_report
from equipoise.report.balance.view import is_balance
from equipoise.report.comparison.page import build_comparison_report
from equipoise.report.comparison.view import is_comparison
from equipoise.report.page import build_report
from equipoise.training.run_directory import RunDirectory

ALLOWED = "allowed are run directories, or one folder that `equipoise balance --out` or `compare --out` made"


def report_on(folders: Sequence[Path], target: Path | None = None) -> Path:
    """Write the report of one or several runs, of a balance, or of a comparison.

    Args:
        folders: in the order in which they are shown.
        target: the file; by default `report.html` in the first folder.

    Returns:
        The file.

    Raises:
        RunError: a folder is none of these, or a balance or comparison is not alone.
    """
    if len(folders) == 1 and is_comparison(folders[0]):
        return build_comparison_report(folders[0], target)
    for folder in folders:
        if is_comparison(folder):
            raise RunError(f"{folder} is a comparison and has a report of its own; {ALLOWED}")
        if not (is_balance(folder) or RunDirectory(folder).recipe_file.is_file()):
            raise RunError(f"{folder} has no recipe.yaml, no balance.json and no nodes; {ALLOWED}")
    balances = [folder for folder in folders if is_balance(folder)]
    if not balances:
        runs = [RunDirectory(folder) for folder in folders]
        if not runs:
            raise RunError("there is no run to report on")
        return build_report(runs, target or runs[0].report_file)
    if len(folders) > 1:
        raise RunError(
            f"{balances[0]} is a balance and has a report of its own; found {len(folders)} folders; {ALLOWED}"
        )
    return build_balance_report(balances[0], target)
