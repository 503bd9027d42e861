"""A run as the report sees it: its log turned into columns, and a list of what is not there yet.

Nothing a run directory holds is taken on trust: a file may be missing, half a value may be null, and a run may have
been copied from a machine whose data folders this one does not have, so the recipe is read as text and not validated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.errors import RunError
from equipoise.modules.partition import LLM
from equipoise.opening import read_plain
from equipoise.report.lines import lines_of
from equipoise.report.mishaps import Mishaps
from equipoise.report.numbers import LARGEST, number
from equipoise.report.recipe_text import parsed
from equipoise.report.verdict import Verdict, diagnose
from equipoise.training.run_directory import RunDirectory

UNFINISHED = "training has not finished (no done.json)"

MOST_BYTES = 64_000_000
"""Of a file that is read whole."""

JUDGED = ("kappa", "drift/", "lr_factor/")
"""How the keys begin that `diagnose` reads."""

Column = tuple[list[float], list[float]]
"""Steps, and the finite values logged at them."""


@dataclass(frozen=True)
class RunView:
    """One run, read once.

    Attributes:
        label: the run's name in figures and tables; different for every run of a report.
        settings: the recipe as plain data of bounded size; None where it is no YAML, or too large.
        method: the schedule, with `servo` where that controls it; None where the recipe does not say.
        columns: every number of `metrics.jsonl` by key.
        modules: the modules that learn, in the log's order: the encoder's first, the LLM last.
        module_table: the rows of `modules.json`.
        scores: the content of `scores.json`.
        data: the content of `data.json`.
        environment: versions and device, from `environment.json`.
        step_ratio: time of all steps over the time of all steps without balancing.
        missing: what the report cannot show of this run, in words.
        mishaps: what went wrong with its numbers, a sentence each.
    """

    label: str
    method: str | None
    recipe: str | None
    settings: Any
    columns: Mapping[str, Column]
    modules: Sequence[str]
    module_table: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Any]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    step_ratio: float | None
    verdict: Verdict
    missing: Sequence[str]
    mishaps: Sequence[str] = ()

    def column(self, key: str) -> Column:
        """Steps and values of a key; empty lists where it was never logged."""
        return self.columns.get(key, ([], []))

    def last(self, key: str) -> float | None:
        """The newest value of a key."""
        values = self.column(key)[1]
        return values[-1] if values else None

    @property
    def steps(self) -> int:
        """The newest step of the log."""
        return int(max((steps[-1] for steps, _ in self.columns.values()), default=0))

    @property
    def tasks(self) -> dict[str, Mapping[str, Any]]:
        """Scores by task."""
        tasks = self.scores.get("tasks")
        found = tasks.items() if isinstance(tasks, dict) else ()
        return {str(name): scores for name, scores in found if isinstance(scores, dict)}

    @property
    def validation_loss(self) -> float | None:
        """The evaluation's validation loss, else the newest of the log."""
        if "validation_loss" in self.scores:  # of the finished model, also where it is not finite
            return number(self.scores["validation_loss"])
        return self.last("validation_loss")


def view_all(runs: Sequence[RunDirectory]) -> list[RunView]:
    """Read runs and give each a label of its own.

    Raises:
        RunError: there is none.
    """
    if not runs:
        raise RunError("there is no run to report on")
    paths = [run.path.resolve() for run in runs]
    depth = 1
    while len({_tail(path, depth) for path in paths}) < len(set(paths)):
        depth += 1
    labels: list[str] = []
    for path in paths:
        label = _tail(path, depth)
        labels.append(label if label not in labels else f"{label} ({labels.count(label) + 1})")
    return [view_one(run, label) for run, label in zip(runs, labels, strict=True)]


def view_one(run: RunDirectory, label: str) -> RunView:
    """Read one run under the label it is given."""
    seen = Mishaps()
    columns, lines = _read_log(run.metrics_file, seen)
    modules = _modules(columns)
    recipe = _text(run.recipe_file)
    settings = None if recipe is None else parsed(recipe)
    table = read_json(run.path / "modules.json")
    scores = read_json(run.scores_file)
    data = read_json(run.data_file)
    environment = read_json(run.path / "environment.json")
    ratio = _step_ratio(_lines(run.timings_file))
    absent = {
        UNFINISHED: not run.done,
        "no step was logged (metrics.jsonl)": not columns,
        "no kappa was logged": not any(key.startswith("kappa") for key in columns) and bool(columns),
        "not evaluated (scores.json)": not isinstance(scores, dict),
        "no module table (modules.json)": not isinstance(table, list),
        "no step times (timings.jsonl)": ratio is None,
        "no recipe (recipe.yaml)": recipe is None,
    }
    return RunView(
        label=label,
        method=_method(settings),
        recipe=recipe,
        settings=settings,
        columns=columns,
        modules=modules,
        module_table=[row for row in table if isinstance(row, dict)] if isinstance(table, list) else [],
        scores=scores if isinstance(scores, dict) else {},
        data=data if isinstance(data, dict) else {},
        environment=environment if isinstance(environment, dict) else {},
        step_ratio=ratio,
        verdict=diagnose(lines),
        missing=[words for words, is_absent in absent.items() if is_absent],
        mishaps=seen.sentences(columns, modules),
    )


def _read_log(file: Path, seen: Mishaps) -> tuple[dict[str, Column], list[dict[str, Any]]]:
    """The log's columns, and its lines with what a verdict asks for alone: of 100,000 steps they are large.

    Args:
        seen: is shown each line.
    """
    columns: dict[str, Column] = {}
    lines: list[dict[str, Any]] = []
    for line in _lines(file):
        seen.see(line)
        step = number(line.get("step"))
        kept: dict[str, Any] = {}
        for key, value in line.items():
            name = sys.intern(key)  # every line brings strings of its own
            if name.startswith(JUDGED):
                kept[name] = value
            found = value if type(value) is float and -LARGEST < value < LARGEST else number(value)
            if step is not None and found is not None and name != "step":
                if name not in columns:
                    columns[name] = ([], [])
                steps, values = columns[name]
                steps.append(step)
                values.append(found)
        lines.append(kept)
    return columns, lines


def _modules(columns: Mapping[str, Column]) -> list[str]:
    prefixes = ("drift/", "lr/", "grad_norm_relative/", "lr_factor/", "lookback_drift/")
    names = dict.fromkeys(key.removeprefix(p) for p in prefixes for key in columns if key.startswith(p))
    return sorted(names, key=lambda name: name == LLM)


def _step_ratio(timings: Iterable[Mapping[str, Any]]) -> float | None:
    pairs = [(number(line.get("step_seconds")), number(line.get("balance_seconds"))) for line in timings]
    known = [(step, balance) for step, balance in pairs if step is not None and balance is not None]
    known = known[1:]  # the first step warms up
    rest = sum(step - balance for step, balance in known)
    # A ratio of sums: an estimator that measures each k-th step makes two kinds of steps, and a median sees one.
    return sum(step for step, _ in known) / rest if rest > 0 else None


def _method(settings: Any) -> str | None:
    for key in ("balance", "modules"):
        settings = settings.get(key) if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(settings.get("schedule"), str):
        return None
    servo = settings.get("controller") == "servo" and settings["schedule"] in ("commit", "commit-clr")
    return f"{settings['schedule']}, servo" if servo else settings["schedule"]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file's lines, to the first line that is damaged: the last, cut short by a kill."""
    try:
        for _, text in lines_of(file):
            line = json.loads(text)
            if isinstance(line, dict):
                yield line
    except (OSError, ValueError, RecursionError):
        return


def _tail(path: Path, depth: int) -> str:
    return "/".join(path.parts[-depth:])


def _text(path: Path) -> str | None:
    try:
        return read_plain(path, MOST_BYTES).decode()
    except (OSError, ValueError):
        return None


def read_json(path: Path) -> Any:
    """A file's content; None where it is missing, unreadable, too large or no JSON."""
    try:
        return json.loads(read_plain(path, MOST_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return None
