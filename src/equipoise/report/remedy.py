"""What to do about a verdict, as settings to paste: base learning rates, a schedule, a window, weights of tasks.

Pure functions on a run as the report sees it. The rates are the run's own base rates, divided by what the verdict
found; for a log without a recipe (`attach()`), the same as Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import yaml

from equipoise.report.numbers import number
from equipoise.report.starving import starvation
from equipoise.report.verdict import OSCILLATING, called, rounded
from equipoise.report.view import RunView

CALM = 2.0
"""How many times lower both rates, or how many times longer the window, of an oscillating run are to begin with. No
theory gives the number: it is a first step, to be measured again."""

MOST = 10.0
"""How many times its present weight a starving task is given at most: beyond, the few tokens it has decide a step."""

LET_IT = "balance.modules.schedule=commit-clr", 'Coordination("commit-clr")'
"""The schedule that moves the learning rates itself, for a recipe and for Python."""


@dataclass(frozen=True)
class Remedy:
    """One thing to do.

    Attributes:
        what: a sentence.
        overrides: `key=value` for a recipe; empty where there is none.
        code: the same as Python, for a Trainer given to `attach()`.
        otherwise: another way, as `key=value` or a sentence; empty for none.
        otherwise_code: the same as Python.
    """

    what: str
    overrides: Sequence[str]
    code: str
    otherwise: str = ""
    otherwise_code: str = ""


def remedies(run: RunView) -> list[Remedy]:
    """What to do about one run: first its modules, then its tasks. Empty where nothing is to be changed."""
    return [*_modules(run), *_tasks(run)]


def base_rates(run: RunView) -> dict[str, float]:
    """Base learning rate of each module that learns.

    From the module table; else from the log: the largest rate that a schedule's factor did not make, which is the
    base rate from the end of warm-up on.
    """
    table = {
        str(row.get("module")): rate
        for row in run.module_table
        if row.get("trainable") and (rate := number(row.get("learning_rate"))) is not None
    }
    if table:
        return table
    found = {}
    for module in run.modules:
        rates = dict(zip(*run.column(f"lr/{module}"), strict=True))
        factors = dict(zip(*run.column(f"lr_factor/{module}"), strict=True))
        bases = [rate / factor for step, rate in rates.items() if (factor := factors.get(step, 1.0)) > 0]
        if bases and max(bases) > 0:
            found[module] = max(bases)
    return found


def even_weights(run: RunView, starving: Sequence[str]) -> dict[str, float]:
    """A weight for each starving task with which its tokens count as much as the mean of the other tasks'.

    With L_i = sum over steps of lambda_i T_i: the others' mean L over the task's own tokens; at least twice the task's
    present weight, at most `MOST` times. Empty where tokens were not logged.
    """
    tasks = [key.removeprefix("task_tokens/") for key in run.columns if key.startswith("task_tokens/")]
    tokens = {task: sum(run.column(f"task_tokens/{task}")[1]) for task in tasks}
    weights = {task: present_weight(run, task) for task in tasks}
    others = [tokens[task] * weights[task] for task in tasks if task not in starving]
    found = {}
    for task in starving:
        if others and tokens.get(task):
            even = fmean(others) / tokens[task] / weights[task]
            found[task] = weights[task] * min(MOST, max(2.0, even))
    return found


def present_weight(run: RunView, task: str) -> float:
    """The mean of its weights over the run; 1 where none was logged."""
    weights = run.column(f"task_weight/{task}")[1]
    mean = fmean(weights) if weights else 1.0
    return mean if mean > 0 else 1.0


def flow(values: Mapping[str, float]) -> str:
    """A mapping as YAML in one line, whatever its names hold."""
    plain = dict(values)
    return yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).strip()


def _modules(run: RunView) -> list[Remedy]:
    verdict, rates = run.verdict, base_rates(run)
    # As the verdict sees it: factors that took more values than on, off and one constant.
    adapts = any(len(set(run.column(f"lr_factor/{module}")[1])) > 2 for module in run.modules)
    if verdict.lower:
        parts = [f"{called(module)}'s learning rate {rounded(factor)}x" for module, factor in verdict.lower.items()]
        return [_with_rates(f"Lower {' and '.join(parts)}", rates, verdict.lower, not adapts)]
    if verdict.name != OSCILLATING:
        return []
    if not adapts:
        factors = dict.fromkeys(rates, CALM)
        what = f"Lower all learning rates, {rounded(CALM)}x to begin with"
        return [_with_rates(what, rates, factors, True)]
    window = number(_settings(run).get("window")) or 20
    longer = round(CALM * window)
    what = f"Average kappa over a longer window, {longer} measurements instead of {window:.0f} to begin with."
    return [Remedy(what, [f"balance.modules.window={longer}"], f"Coordination(..., window={longer})")]


def _with_rates(what: str, rates: Mapping[str, float], factors: Mapping[str, float], or_let: bool) -> Remedy:
    lowered = {
        module: float(f"{rate / factors[module]:.2g}") if module in factors else rate for module, rate in rates.items()
    }
    otherwise = LET_IT if or_let else ("", "")
    if not lowered:  # no rate was logged
        return Remedy(f"{what}.", [], "", *otherwise)
    code = f"attach(trainer, ..., learning_rates={lowered})"
    return Remedy(f"{what}.", [f"train.learning_rate={flow(lowered)}"], code, *otherwise)


def _tasks(run: RunView) -> list[Remedy]:
    found = starvation(run.columns)
    if found is None or not found.tasks:
        return []
    hungry = [task for task in found.tasks if task not in found.ample]
    look = f"Look at the samples and answers of {_listed(found.ample)}: of tokens there are enough."
    looked = [Remedy(look, [], "")] if found.ample else []
    return [*_weights(run, hungry), *looked] if hungry else looked


def _weights(run: RunView, hungry: Sequence[str]) -> list[Remedy]:
    """More of it for the tasks that starve of too few tokens."""
    heavier = even_weights(run, hungry)
    otherwise = "let `equipoise balance RECIPE` find the weights of all tasks"
    if not heavier:
        return [Remedy(f"Give {_listed(hungry)} more weight.", [], "", otherwise, otherwise)]
    # Weights that move (dwa, rlw, igbv1) or were given stay what they were on average.
    known = {key.removeprefix("task_weight/") for key in run.columns if key.startswith("task_weight/")}
    weights = {task: float(f"{present_weight(run, task):.2g}") for task in sorted(known)}
    weights |= {task: float(f"{weight:.2g}") for task, weight in heavier.items()}
    weights = {task: weight for task, weight in weights.items() if weight != 1}
    parts = [
        f"{task} {rounded(weight / present_weight(run, task))} times its weight" for task, weight in heavier.items()
    ]
    return [
        Remedy(
            f"Give {_listed(parts)}.",
            ["balance.tasks.weighter=fixed", f"balance.tasks.weights={flow(weights)}"],
            f'attach(trainer, ..., tasks=TaskWeighting("fixed", weights={weights}))',
            otherwise,
            otherwise,
        )
    ]


def _settings(run: RunView) -> dict[str, Any]:
    """`balance.modules` of the recipe, which may be of another version."""
    found = run.settings
    for key in ("balance", "modules"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
