"""What `equipoise diagnose` says of a folder: the verdict with its evidence, the tasks that starve, and what to do.

A folder is a run directory, finished or not, the output folder of a Trainer that was given to `attach()`, or a
balance, whose findings come first and whose own runs follow.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.errors import RunError
from equipoise.report.balance.verdict import findings
from equipoise.report.balance.view import BalanceView, is_balance, view_balance
from equipoise.report.comparison.view import is_comparison
from equipoise.report.remedy import Remedy, flow, remedies
from equipoise.report.starving import Starvation, starvation
from equipoise.report.verdict import Verdict, rounded
from equipoise.report.view import UNFINISHED, RunView, view_one
from equipoise.texts import printable
from equipoise.training.run_directory import RunDirectory


@dataclass(frozen=True)
class Diagnosis:
    """One run's.

    Attributes:
        label: the run's name.
        steps: the newest of its log.
        finished: None where that is not written: `attach()` writes no done.json.
        has_recipe: whether settings are a recipe's; those of a log without one are Python's.
        recipe: the file to try again with, where it is known.
        given: overrides that the recipe was measured with; they are tried again too.
        tasks: None where the log tells no two tasks apart.
        mishaps: what went wrong with the run's numbers.
    """

    label: str
    steps: int
    finished: bool | None
    has_recipe: bool
    recipe: Path | None
    verdict: Verdict
    tasks: Starvation | None
    remedies: Sequence[Remedy]
    given: Sequence[str] = ()
    mishaps: Sequence[str] = ()

    def sentence(self) -> str:
        """The verdict and who starves, short: what changes when the diagnosis does."""
        starving = f"; starving: {', '.join(self.tasks.tasks)}" if self.tasks and self.tasks.tasks else ""
        unmade = "; some steps were not made" if any("not made" in words for words in self.mishaps) else ""
        return f"{self.verdict.name}{starving}{unmade}"

    def lines(self) -> list[str]:
        """For a terminal."""
        verdict = self.verdict
        lines = [f"{verdict.name}: {verdict.advice}"]
        state = "" if self.finished else ", training has not finished" if self.finished is False else ""
        numbers = f"  {self.label}: {self.steps:,} steps{state}"
        if verdict.kappa is not None and verdict.std_log_kappa is not None:
            numbers += f"; kappa {rounded(verdict.kappa)}, std of log kappa {rounded(verdict.std_log_kappa)}"
            numbers += f", {verdict.measurements:,} measurements"
        lines.append(numbers)
        lines += [f"  {sentence}" for sentence in self.mishaps]
        if self.tasks is not None:
            lines += [f"  {sentence}" for sentence in self.tasks.sentences]
        return [*lines, *self._to_do()]

    def _to_do(self) -> list[str]:
        if not self.remedies:
            return []
        lines = ["What to do:"]
        for remedy in self.remedies:
            lines.append(f"  {remedy.what}")
            if settings := shlex.join(remedy.overrides) if self.has_recipe else remedy.code:
                lines.append(f"    {settings}")
            if otherwise := remedy.otherwise if self.has_recipe else remedy.otherwise_code:
                lines.append(f"    or {otherwise}")
        overrides = [override for remedy in self.remedies for override in remedy.overrides]
        if self.recipe is not None and overrides:
            command = [
                "equipoise",
                "train",
                str(self.recipe),
                *self.given,
                *overrides,
                "--out",
                f"runs/{self.label}-again",
            ]
            lines += ["Try it:", f"  {shlex.join(command)}"]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        verdict = self.verdict
        return {
            "run": self.label,
            "steps": self.steps,
            "finished": self.finished,
            "verdict": {
                "name": verdict.name,
                "module": verdict.module,
                "pair": list(verdict.pair) if verdict.pair else None,
                "kappa": verdict.kappa,
                "std_log_kappa": verdict.std_log_kappa,
                "measurements": verdict.measurements,
                "lower": dict(verdict.lower),
                "advice": verdict.advice,
            },
            "mishaps": list(self.mishaps),
            "tasks": None
            if self.tasks is None
            else {
                "known": self.tasks.known,
                "starving": list(self.tasks.tasks),
                "sentences": list(self.tasks.sentences),
            },
            "to_do": [
                {"what": r.what, "overrides": list(r.overrides), "code": r.code, "or": r.otherwise or None}
                for r in self.remedies
            ],
        }


@dataclass(frozen=True)
class BalanceDiagnosis:
    """A balance's: what its report opens with, and its own runs' diagnoses.

    Attributes:
        overrides: the weights it found, for a recipe.
    """

    view: BalanceView
    runs: Sequence[Diagnosis]
    overrides: Sequence[str] = field(default_factory=list)

    def sentence(self) -> str:
        """As a run's."""
        return "; ".join([*(found.name for found in findings(self.view)), *(run.sentence() for run in self.runs)])

    def lines(self) -> list[str]:
        """As a run's."""
        lines = []
        for found in findings(self.view):
            evidence = f" ({found.evidence})" if found.evidence else ""
            lines.append(f"{found.topic}: {found.name}{evidence}. {found.advice}")
        if self.view.missing:
            lines.append(f"Not there: {'; '.join(self.view.missing)}.")
        for run in self.runs:
            lines += [f"{run.label}:", *(f"  {line}" for line in run.lines())]
        if self.overrides:
            lines += ["To train with these weights:", f"  {shlex.join(self.overrides)}"]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """As a run's."""
        return {
            "balance": self.view.label,
            "findings": [
                {"topic": found.topic, "name": found.name, "evidence": found.evidence, "advice": found.advice}
                for found in findings(self.view)
            ],
            "missing": list(self.view.missing),
            "runs": [run.as_dict() for run in self.runs],
            "overrides": list(self.overrides),
        }


def diagnose_folder(
    folder: Path, recipe: Path | None = None, given: Sequence[str] = ()
) -> Diagnosis | BalanceDiagnosis:
    """Diagnose what a folder holds so far.

    Args:
        recipe: to try again with; the run's own resolved one when None.
        given: overrides it was measured with.

    Raises:
        RunError: the folder holds neither a run nor a balance.
    """
    if is_comparison(folder):
        raise RunError(f"{folder} is a comparison, see `equipoise report`; diagnose a folder of {folder / 'nodes'}")
    if is_balance(folder):
        return _balance(view_balance(folder))
    run = RunDirectory(folder)
    if not (run.recipe_file.is_file() or run.metrics_file.is_file()):
        raise RunError(f"{folder} has no metrics.jsonl and no recipe.yaml; allowed are a recipe, a run, or a balance")
    own = run.recipe_file if run.recipe_file.is_file() else None
    return diagnosis_of(view_one(run, folder.resolve().name), recipe or own, given)


def diagnosis_of(view: RunView, recipe: Path | None, given: Sequence[str] = ()) -> Diagnosis:
    """Diagnose a run that has been read."""
    finished = UNFINISHED not in view.missing
    return Diagnosis(
        label=view.label,
        steps=view.steps,
        finished=None if view.recipe is None and not finished else finished,
        has_recipe=view.recipe is not None,
        recipe=recipe,
        verdict=view.verdict,
        tasks=starvation(view.columns),
        remedies=remedies(view),
        given=given,
        mishaps=view.mishaps,
    )


def shown(lines: Sequence[str]) -> list[str]:
    """Lines for a terminal: names come from files, and some characters steer a terminal."""
    return [printable(line) for line in lines]


def _balance(view: BalanceView) -> BalanceDiagnosis:
    runs = [diagnosis_of(run, None) for run in view.runs.values() if run.columns]
    final: Mapping[str, float] = view.weights.get("cotbal", {})
    if not final:
        return BalanceDiagnosis(view, runs)
    weights = flow({task: float(f"{weight:.4g}") for task, weight in final.items()})
    return BalanceDiagnosis(view, runs, ["balance.tasks.weighter=cotbal", f"balance.tasks.weights={weights}"])
