"""The part of a page that says how the runs were made: where they differ, with what versions, and the whole recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from equipoise.report.markup import ABSENT, safe, table, tag
from equipoise.report.skeleton import missing
from equipoise.report.view import RunView

LONGEST = 80
"""Most letters of a value in the table."""


def settings_section(runs: Sequence[RunView]) -> str:
    """Markup of the section."""
    different = differences(runs) + _environments(runs)
    return different + "".join(_recipe(run) for run in runs)


def differences(runs: Sequence[RunView]) -> str:
    """A row a setting that is not the same in all runs; a line where there is none, and nothing for a single run."""
    known = [run for run in runs if run.recipe is not None]
    if len(known) < 2:
        return ""
    flat = [dict(_values(run.settings, "")) for run in known]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    unlike = [key for key in keys if len({settings.get(key, ABSENT) for settings in flat}) > 1]
    if not unlike:
        return tag("p", "The runs' recipes are the same.")
    rows = [[key, *(_short(settings.get(key, ABSENT)) for settings in flat)] for key in unlike]
    return table("Settings that differ", ["setting", *(run.label for run in known)], rows)


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
    return f"<details><summary>{safe(run.label)}: resolved recipe</summary>{tag('pre', run.recipe)}</details>\n"


def _values(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each value of a recipe by its path, `train.learning_rate`; a task's by its name, wherever it stands."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = [
            (str(item["name"]) if isinstance(item, Mapping) and "name" in item else str(number), item)
            for number, item in enumerate(value)
        ]
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        return
    for key, item in items:
        yield from _values(item, f"{path}.{key}" if path else key)


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
