"""A comparison as its report sees it: every finished run's numbers, and the curves of each method over its seeds.

Nothing the folder holds is taken on trust: files may be missing, of another form, or name folders outside of it. The
statistics are computed here anew, from the runs' numbers. Logs are read one at a time, and only what is drawn is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from equipoise.comparing.measured import Measured
from equipoise.comparing.summary import Summary, summarise
from equipoise.modules.partition import LLM
from equipoise.report.comparison.bands import Band, band
from equipoise.report.figures import SMOOTHED
from equipoise.report.numbers import number
from equipoise.report.view import Column, read_json, view_one
from equipoise.training.run_directory import RunDirectory

Name = TypeVar("Name", str, int)
FILE = "comparison.json"
NAMED = 4
"""Of many runs that are missing."""
KAPPA, LOSS, VALIDATION = "kappa_average", "loss", "validation_loss"
GRADIENT, RATE, STEP, TASK_LOSS, TASK_WEIGHT = (
    "grad_norm_relative/", "lr/", "theory/H/", "task_loss/", "task_weight/",
)  # fmt: skip
MOST = 1000
"""Methods, and seeds, that a report is of; so many that nobody reads it, and few enough for any machine."""
DRAWN = (KAPPA, LOSS, VALIDATION, GRADIENT, RATE, STEP, TASK_LOSS, TASK_WEIGHT)
"""The keys of the log, or their beginnings, of which curves are drawn."""
LOGARITHMIC = (KAPPA, GRADIENT, RATE, STEP, TASK_LOSS)
NOISY = (LOSS, GRADIENT, STEP, TASK_LOSS)
"""Those of which each seed's trailing mean is drawn."""


@dataclass(frozen=True)
class ComparisonView:
    """One comparison, read once.

    Attributes:
        label: the folder's name.
        methods: all that were planned, in the user's order, which decides their colours.
        seeds: likewise.
        split: what was scored.
        summary: what the finished runs say.
        settings: by method, what its recipe has otherwise than the others'.
        curves: by key of the log, by method.
        missing: what the report cannot show, in words.
    """

    label: str
    methods: Sequence[str]
    seeds: Sequence[int]
    split: str | None
    summary: Summary
    settings: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, Band]]
    missing: Sequence[str]

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so, in the log's order, the LLM's last."""
        found = [key for key in self.curves if key.startswith(prefix)]
        return sorted(found, key=lambda key: key.removeprefix(prefix) == LLM)


def is_comparison(folder: Path) -> bool:
    """Whether a folder is what `equipoise compare --out` makes, whole or begun."""
    return (folder / FILE).is_file()


def view_comparison(folder: Path) -> ComparisonView:
    """Read everything that is there."""
    found = read_json(folder / FILE)
    plain: dict[str, Any] = found if isinstance(found, dict) else {}
    runs = [run for one in _list(plain.get("runs")) if (run := _measured(one)) is not None]
    methods = [name for name in _list(plain.get("methods")) if isinstance(name, str)]
    methods, more_methods = _bounded([*methods, *(run.method for run in runs)])
    seeds = [int(seed) for one in _list(plain.get("seeds")) if (seed := number(one)) is not None]
    seeds, more_seeds = _bounded([*seeds, *(run.seed for run in runs)])
    # One of each method and seed, the last, and none of what is left out.
    found_runs = {(run.method, run.seed): run for run in runs}
    kept_methods, kept_seeds = set(methods), set(seeds)
    runs = [run for (method, seed), run in found_runs.items() if method in kept_methods and seed in kept_seeds]
    named = plain.get("baseline")
    baseline = named if isinstance(named, str) and named in methods else next(iter(methods), "")
    done = {(run.method, run.seed) for run in runs}
    planned = len(methods) * len(seeds)
    # Counted and not listed: a thousand methods with a thousand seeds are a million.
    open_ = ((method, seed) for seed in seeds for method in methods if (method, seed) not in done)
    first = [f"{method} with seed {seed}" for method, seed in islice(open_, NAMED)] if len(done) < planned else []
    curves, unread = _curves(folder / "nodes", runs, methods)
    absent = {
        f"methods ({FILE} names none)": not methods,
        f"{more_methods} methods after the first {MOST:,}": more_methods > 0,
        f"{more_seeds} seeds after the first {MOST:,}": more_seeds > 0,
        f"{planned - len(done)} of {planned} runs: {_some(first, planned - len(done))}": bool(first),
        f"the logs of {_some(unread, len(unread))}": bool(unread),
        "scores: no task has a metric and a part to be scored on": bool(runs) and not any(run.scores for run in runs),
        "kappa: it was not measured (balance.modules.measure)": bool(runs)
        and not any(key.startswith(KAPPA) for key in curves),
    }
    settings = plain.get("settings")
    split = plain.get("split")
    return ComparisonView(
        label=folder.resolve().name,
        methods=methods,
        seeds=seeds,
        split=split if isinstance(split, str) else None,
        summary=summarise(runs, methods, baseline),
        settings={
            method: own
            for method, own in (settings.items() if isinstance(settings, dict) else ())
            if method in methods and isinstance(own, dict)
        },
        curves=curves,
        missing=[words for words, is_absent in absent.items() if is_absent],
    )


def _curves(
    root: Path, runs: Sequence[Measured], methods: Sequence[str]
) -> tuple[dict[str, dict[str, Band]], list[str]]:
    """Bands by key, by method; and the runs whose logs hold nothing."""
    curves: dict[str, dict[str, Band]] = {}
    unread = []
    for method in methods:
        columns: dict[str, list[Column]] = {}
        for run in (run for run in runs if run.method == method and len(run.nodes) == 1):
            logged = _log(root, run.nodes[0], method)
            if not logged:
                unread.append(f"{method} with seed {run.seed}")
            for key, column in logged.items():
                if key.startswith(DRAWN):
                    columns.setdefault(key, []).append(column)
        for key, of_seeds in columns.items():
            smoothed = SMOOTHED if key.startswith(NOISY) and min(len(c[0]) for c in of_seeds) > SMOOTHED else 1
            made = band(of_seeds, smoothed, key.startswith(LOGARITHMIC))
            if made is not None:
                curves.setdefault(key, {})[method] = made
    return curves, unread


def _log(root: Path, node: str, method: str) -> Mapping[str, Column]:
    """The log of a node of this folder; empty where its name, or a link of that name, leads elsewhere or nowhere."""
    try:
        if (root / node).resolve().parent != root.resolve():
            return {}
        return view_one(RunDirectory(root / node), method).columns
    # Too long for a name, with a null byte, or a link in a circle.
    except (OSError, ValueError, RuntimeError):
        return {}


def _measured(plain: Any) -> Measured | None:
    """One run's numbers; None where the entry says nothing of a run."""
    if not isinstance(plain, dict):
        return None
    method, seed = plain.get("method"), number(plain.get("seed"))
    nodes = tuple(node for node in _list(plain.get("nodes")) if isinstance(node, str))
    if not isinstance(method, str) or seed is None or not nodes:
        return None
    scores = plain.get("scores")
    found = {
        task: {name: known for name, value in sets.items() if (known := number(value)) is not None}
        for task, sets in (scores.items() if isinstance(scores, dict) else ())
        if isinstance(sets, dict)
    }
    kappa, spread, time = (number(plain.get(key)) for key in ("kappa", "std_log_kappa", "step_time"))
    loss = number(plain.get(VALIDATION))
    return Measured(method, int(seed), nodes, found, loss, _positive(kappa), spread, _positive(time))


def _positive(value: float | None) -> float | None:
    """What has a logarithm."""
    return value if value is not None and 0 < value < math.inf else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _bounded(names: Iterable[Name]) -> tuple[list[Name], int]:
    """The first of those that differ, and how many others there are."""
    found = list(dict.fromkeys(names))
    return found[:MOST], max(0, len(found) - MOST)


def _some(names: Sequence[str], count: int) -> str:
    """The first of many names, and how many others."""
    return ", ".join(names[:NAMED]) + (f" and {count - NAMED} more" if count > NAMED else "")
