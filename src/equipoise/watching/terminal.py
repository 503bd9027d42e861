"""What `equipoise diagnose` prints: of a recipe that was just measured, of a folder, of a run that is followed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from equipoise.report.diagnosis import BalanceDiagnosis, diagnose_folder, shown
from equipoise.report.verdict import rounded
from equipoise.watching.follow import Found, follow


def print_diagnosis(folder: Path, console: Console, follows: bool = False, as_json: bool = False) -> None:
    """Print the diagnosis of a folder, or follow it until it is finished and print the last.

    Raises:
        RunError: there is nothing to diagnose.
    """
    if not follows:
        _print(diagnose_folder(folder), console, as_json)
        return

    def changed(found: Found) -> None:
        if as_json:
            _print_json(found, console, None)
        else:
            _say([f"{_where(found)}{found.sentence()}"], console)

    def waiting() -> None:
        if not as_json:
            _say([f"{folder}: waiting for a first step"], console)

    last = follow(folder, changed, waiting)
    if last is not None and not as_json:
        _print(last, console, as_json)


def print_measured(
    folder: Path, recipe: Path, overrides: Sequence[str], console: Console, as_json: bool = False
) -> None:
    """Print the diagnosis of a run that a recipe was measured in; what to try goes back to the recipe.

    Args:
        overrides: those it was measured with.
    """
    found = diagnose_folder(folder, recipe, overrides)
    _print(found, console, as_json)


def _print(found: Found, console: Console, as_json: bool) -> None:
    if as_json:
        _print_json(found, console, 2)
    else:
        _say(found.lines(), console)


def _print_json(found: Found, console: Console, indent: int | None) -> None:
    print(json.dumps(found.as_dict(), indent=indent, allow_nan=False), file=console.file, flush=True)


def _say(lines: Sequence[str], console: Console) -> None:
    for line in shown(lines):
        console.print(line, highlight=False, emoji=False, soft_wrap=True)


def _where(found: Found) -> str:
    if isinstance(found, BalanceDiagnosis):
        return ""
    kappa = found.verdict.kappa
    about = "" if kappa is None else f", kappa {rounded(kappa)}"
    return f"step {found.steps:,}{about}: "
