"""The part of a page that says how the runs were made: where they differ, with what versions, and the whole recipes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from equipoise.report.markup import ABSENT, cut, safe, table, tag
from equipoise.report.recipe_text import DEPTH, HIDDEN, VALUES, is_secret, secrecy, without_secrets
from equipoise.report.skeleton import missing
from equipoise.report.view import RunView

LONGEST, BEFORE = 80, 20
"""Most letters of a value in the table, and how many of them stand before where long values begin to differ."""

RECIPE = 100_000
"""Most letters of a recipe."""

UNREAD = f"no YAML, or more than {VALUES:,} values or {DEPTH} levels of them"


def settings_section(runs: Sequence[RunView]) -> str:
    """Markup of the section."""
    different = differences(runs) + _environments(runs)
    return different + "".join(_recipe(run) for run in runs)


def differences(runs: Sequence[RunView]) -> str:
    """A row a setting that is not the same in all runs; a line where there is none, and nothing for a single run.

    Of a secret it is not said whether it differs.
    """
    known = [run for run in runs if run.recipe is not None]
    if len(known) < 2:
        return ""
    odd = [run.label for run in known if run.settings is None]
    said = missing(f"The settings of {', '.join(odd)} cannot be compared: {UNREAD}.") if odd else ""
    known = [run for run in known if run.settings is not None]
    if len(known) < 2:
        return said
    flat = [dict(_values(run.settings, "")) for run in known]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    rows = [[settings.get(key) for settings in flat] for key in keys]
    unlike = [[key, *_cells(row)] for key, row in zip(keys, rows, strict=True) if len(set(row)) > 1]
    if not unlike:
        return said + tag("p", "The runs' recipes are the same.")
    return said + table("Settings that differ", ["setting", *(run.label for run in known)], unlike)


def _environments(runs: Sequence[RunView]) -> str:
    """With what each run was made, said once where all say the same."""
    said = {run.label: ", ".join(f"{key} {value}" for key, value in run.environment.items()) for run in runs}
    known = {label: words for label, words in said.items() if words}
    if not known:
        return ""
    if len(set(known.values())) == 1 and len(known) == len(runs):
        return tag("p", f"Made with {next(iter(known.values()))}.")
    return "".join(tag("p", f"{label} was made with {words}.") for label, words in known.items())


def _recipe(run: RunView) -> str:
    if run.recipe is None:
        return missing(f"{run.label}: no recipe.yaml.")
    text = tag("pre", cut(without_secrets(run.recipe), RECIPE))
    return f"<details><summary>{safe(run.label)}: resolved recipe</summary>{text}</details>\n"


def _values(value: Any, path: str, why: str = "") -> Iterator[tuple[str, str]]:
    """Each value of a recipe by its path, `train.learning_rate`; a task's by its name, wherever it stands.

    Args:
        why: why what is here may be secret.
    """
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = [
            (str(item["name"]) if isinstance(item, Mapping) and "name" in item else str(number), item)
            for number, item in enumerate(value)
        ]
    else:
        yield path, HIDDEN if is_secret(why, value) else _text(value)
        return
    for key, item in items:
        yield from _values(item, f"{path}.{key}" if path else key, secrecy(key, why))


def _text(value: Any) -> str:
    """A value as a cell, unlike any other value's: a text that JSON would read as something else is in quotes."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return value if value not in (ABSENT, HIDDEN) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _cells(values: Sequence[str | None]) -> list[str]:
    """Unlike values as unlike cells: of long ones, the piece in which they begin to differ."""
    given = [value for value in values if value is not None]
    start = 0
    if any(len(value) > LONGEST for value in given):
        alike = (n for n, letters in enumerate(zip(*given, strict=False)) if len(set(letters)) > 1)
        start = max(0, next(alike, min(map(len, given))) - BEFORE)
    cells = [ABSENT if value is None else _piece(value, start) for value in values]
    if len(set(cells)) < len(set(values)):  # two that differ where a third one has long gone another way
        cells = [
            cell if cell == value or value is None else f"{cell} ({_digest(value)})"
            for cell, value in zip(cells, values, strict=True)
        ]
    return cells


def _piece(value: str, start: int) -> str:
    before, after = "…" if start else "", "…" if len(value) > start + LONGEST else ""
    return f"{before}{value[start : start + LONGEST]}{after}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()[:6]
