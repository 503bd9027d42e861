"""A balance as its report sees it: contributions, weights, scores by run, and a list of what is not there yet.

Nothing the folder holds is taken on trust: files may be missing, of another form, or name folders outside of it. What
is no finite number where one is needed is left out, as if it had not been written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.report.numbers import number
from equipoise.report.view import UNFINISHED, RunView, read_json, view_one
from equipoise.tasks.contribution import MINI, full_run, no_contribution_to
from equipoise.tasks.plan import BUDGET, FINAL, STL, WEIGHTERS
from equipoise.training.run_directory import RunDirectory

Scores = Mapping[str, Mapping[str, float]]
"""By run, by task."""

VECTORS = ("one2all", "all2one", "contribution", "difficulty", "cotbal")
"""The weights by which they are found, the final ones last."""

DRAWN = (FINAL, *WEIGHTERS)
"""The nodes whose logs are read and drawn."""


@dataclass(frozen=True)
class DeltaView:
    """One method against one model per task, in percent; None where unknown."""

    delta_i: float | None
    delta_e: float | None
    tasks: Mapping[str, float]


@dataclass(frozen=True)
class BalanceView:
    """One balance, read once.

    Attributes:
        label: the folder's name.
        tasks: those that are balanced.
        contributions: C_ij by giving task i, by receiving task j.
        one2all, all2one, difficulty: by task.
        weights: by how they are found (`VECTORS`), by task.
        scores: validation scores by run.
        answers: by task, how many validation answers its score rests on.
        undefined_contributions: tasks to which no contribution is defined.
        undefined_difficulties: tasks whose difficulty is not.
        undefined_improvements: lines that name the scores of one model per task that are 0.
        settings: of the recipe's `balance.cotbal`, and the seed.
        estimated: whether `scores` are what a budget's run says of probes that were never run.
        results: test scores by method, by task, by test set.
        deltas: by method.
        runs: the logs of the final run and of the weighters it is compared with; their order decides their colours.
        costs: seconds of training and of scoring by node; None where they are not known.
        final: the node that costs are measured by.
        missing: what the report cannot show, in words.
    """

    label: str
    tasks: Sequence[str] = ()
    contributions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    one2all: Mapping[str, float] = field(default_factory=dict)
    all2one: Mapping[str, float] = field(default_factory=dict)
    difficulty: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)
    undefined_contributions: Sequence[str] = ()
    undefined_difficulties: Sequence[str] = ()
    undefined_improvements: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    estimated: bool = False
    results: Mapping[str, Scores] = field(default_factory=dict)
    deltas: Mapping[str, DeltaView] = field(default_factory=dict)
    runs: Mapping[str, RunView] = field(default_factory=dict)
    costs: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    final: str = FINAL
    missing: Sequence[str] = ()

    @property
    def degenerate(self) -> set[str]:
        """Tasks of which something is undefined."""
        return {*self.undefined_contributions, *self.undefined_difficulties}

    def called(self, task: str) -> str:
        """A task's name wherever it is shown: with an asterisk where something of it is undefined."""
        return f"{task}*" if task in self.degenerate else task


def is_balance(folder: Path) -> bool:
    """Whether a folder is what `equipoise balance --out` makes, whole or begun."""
    return (folder / "balance.json").is_file() or (
        (folder / "nodes").is_dir() and not RunDirectory(folder).recipe_file.is_file()
    )


def view_balance(folder: Path) -> BalanceView:
    """Read everything that is there."""
    balance, results = _dict(read_json(folder / "balance.json")), _dict(read_json(folder / "results.json"))
    costs = _dict(read_json(folder / "costs.json"))
    nodes, ambiguous = _nodes(folder / "nodes", {**_dict(balance.get("nodes")), **_dict(results.get("nodes"))})
    scored = {name: _validation(path) for name, path in nodes.items()}
    scores = {name: {task: value for task, (value, _) in found.items()} for name, found in scored.items() if found}
    scores |= _table(balance.get("scores"))
    tasks = _names(balance.get("tasks")) or list(dict.fromkeys(task for found in scores.values() for task in found))
    degenerate = _dict(balance.get("degenerate"))
    unmeasured = _names(degenerate.get("contributions"))
    if not balance:  # where an undefined quantity is an error, it is why there is none
        unmeasured = [task for task in tasks if _learnt_nothing(scores, task)]
    matrix = balance.get("contributions")
    rows = matrix if isinstance(matrix, list) else []
    test = {name: _table(found) for name, found in _items(results.get("test"))}
    drawn: list[str] = [name for name in DRAWN if name in nodes or name in test]
    runs = {name: view_one(RunDirectory(nodes.get(name, folder / "nodes" / name)), name) for name in drawn}
    unscored = [run for run in (MINI, *map(full_run, tasks)) if run not in scores]
    absent = {
        "the weights (balance.json)": not balance,
        "the test scores (results.json)": not results,
        f"the validation scores of {', '.join(unscored)}": bool(unscored),
        "a comparison with one model per task (--compare stl)": bool(results) and STL not in test,
        **{f"the log of {name}": not run.columns for name, run in runs.items()},
        **{
            f"the end of {name}: {UNFINISHED}": UNFINISHED in run.missing and bool(run.columns)
            for name, run in runs.items()
        },
        **{f"{name}: several folders, and no file says which counts": True for name in ambiguous},
    }
    return BalanceView(
        label=folder.resolve().name,
        tasks=tasks,
        contributions={
            giver: _numbers(dict(zip(tasks, row, strict=False)))
            for giver, row in zip(tasks, rows, strict=False)
            if isinstance(row, list)
        },
        one2all=_numbers(balance.get("one2all")),
        all2one=_numbers(balance.get("all2one")),
        difficulty=_numbers(balance.get("difficulty")),
        weights=_table(balance.get("weights")),
        scores=scores,
        answers={task: count for found in scored.values() for task, (_, count) in found.items() if count > 0},
        undefined_contributions=unmeasured,
        undefined_difficulties=_names(degenerate.get("difficulty")),
        undefined_improvements=_names(_dict(results.get("degenerate")).get("improvements")),
        settings=_dict(balance.get("settings")),
        estimated=balance.get("probes") == BUDGET,
        results={name: found for name, found in test.items() if found},
        deltas={
            name: DeltaView(number(d.get("delta_i")), number(d.get("delta_e")), _numbers(d.get("tasks")))
            for name, d in _items(results.get("deltas"))
            if isinstance(d, dict)
        },
        runs=runs,
        costs={
            name: (number(seconds.get("training")), number(seconds.get("scoring")))
            for name, seconds in _items(costs.get("nodes"))
            if isinstance(seconds, dict)
        },
        final=str(costs.get("final", FINAL)),
        missing=[words for words, is_absent in absent.items() if is_absent],
    )


def _nodes(root: Path, named: Mapping[str, Any]) -> tuple[dict[str, Path], list[str]]:
    """Run directories by node: as the files name them, else by the folders' own names; and the names of several."""
    found: dict[str, Path] = {}
    for name, folder in named.items():
        # A name and no path: a file must not lead out of its own folder.
        if isinstance(folder, str) and folder not in ("", ".", "..") and Path(folder).name == folder:
            found[name] = root / folder
    others: dict[str, list[Path]] = {}
    for path in _folders(root):
        name = path.name.rpartition("-")[0]
        if name and name not in found:
            others.setdefault(name, []).append(path)
    found |= {name: paths[0] for name, paths in others.items() if len(paths) == 1}
    return found, [name for name, paths in others.items() if len(paths) > 1]


def _learnt_nothing(scores: Scores, task: str) -> bool:
    small, whole = (scores.get(run, {}).get(task) for run in (MINI, full_run(task)))
    return small is not None and whole is not None and no_contribution_to(task, small, whole) is not None


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return []


def _validation(folder: Path) -> dict[str, tuple[float, int]]:
    """A node's validation scores by task, and how many answers each rests on."""
    tasks = _dict(read_json(folder / "scores-validation.json")).get("tasks")
    found: dict[str, tuple[float, int]] = {}
    for task, entry in _items(tasks):
        value = number(entry.get("value")) if isinstance(entry, dict) else None
        if value is not None:
            found[task] = value, int(number(entry.get("samples")) or 0)
    return found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(_dict(value).items())


def _numbers(value: Any) -> dict[str, float]:
    return {name: found for name, entry in _items(value) if (found := number(entry)) is not None}


def _table(value: Any) -> dict[str, dict[str, float]]:
    return {name: found for name, entry in _items(value) if (found := _numbers(entry))}


def _names(value: Any) -> list[str]:
    return list(dict.fromkeys(name for name in value if isinstance(name, str))) if isinstance(value, list) else []
