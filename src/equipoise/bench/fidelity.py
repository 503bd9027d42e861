"""How well the default estimator agrees with the exact one: both see the steps of the same runs.

A run trains with `commit-clr` and `exact`, in our Trainer's own loop. The recipe's own estimator sees each step and
changes nothing; now and then the regulariser's gradients are compared too. Then the same run is made with the recipe's
estimator acting, and both are scored on samples that neither has seen.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from equipoise.bench.contestants import Contestant, build
from equipoise.bench.stage import Stage, set_up
from equipoise.bench.watching import GradientAgreement, Watched
from equipoise.modules.coefficient import BalanceWindow, balance_coefficient
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.forward import inference, supervised
from equipoise.modules.partition import LLM
from equipoise.recipe import Recipe
from equipoise.training.task_weighting import TASK_IDS

EXACT = Contestant("exact", modules={"schedule": "commit-clr", "estimator": "exact", "theory": False})
CHEAP = Contestant("default", modules={"schedule": "commit-clr"})
DEFAULT = "default"
#: Samples that no step trains on, for the final loss.
HELD_OUT = 256
#: Steps between two comparisons of the regulariser's gradients.
EVERY = 20


@dataclass
class Agreement:
    """An estimator beside the exact one.

    Attributes:
        log_kappas: pairs (its log kappa~, exact's) after each of its measurements, each of its own window.
        same_span: likewise, exact's averaged over the steps that the estimator's window reaches over; what is left is
            the estimator's error without the lag of a longer window.
        factor_errors: of each module's learning-rate factor at each step, against exact's.
        regularisers: at some steps, the regulariser's gradients beside the exact ones.
        losses: (of the run that it acted in, of the exact run) at the end, on samples that neither has seen.
    """

    log_kappas: list[tuple[float, float]] = field(default_factory=list)
    same_span: list[tuple[float, float]] = field(default_factory=list)
    factor_errors: list[float] = field(default_factory=list)
    regularisers: list[GradientAgreement] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)

    def add(self, other: Agreement) -> None:
        """Pool another run's."""
        self.log_kappas += other.log_kappas
        self.same_span += other.same_span
        self.factor_errors += other.factor_errors
        self.regularisers += other.regularisers
        self.losses += other.losses

    def figures(self) -> dict[str, float | int | None]:
        """The figures: correlations, None where one of the two does not vary, and root mean squares."""
        return {
            "measurements": len(self.log_kappas),
            "r_log_kappa": _correlation(self.log_kappas),
            "rmse_log_kappa": _root_mean_square([one - other for one, other in self.log_kappas]),
            "r_log_kappa_same_span": _correlation(self.same_span),
            "rmse_log_kappa_same_span": _root_mean_square([one - other for one, other in self.same_span]),
            "rmse_lr_factor": _root_mean_square(self.factor_errors),
            **self._of_regularisers(),
            "largest_loss_difference": max((abs(own - exact) for own, exact in self.losses), default=None),
            "loss_spread": statistics.stdev([exact for _, exact in self.losses]) if len(self.losses) > 1 else None,
        }

    def _of_regularisers(self) -> dict[str, float]:
        """Medians over the steps that were compared, by module."""
        modules = self.regularisers[0].cosines if self.regularisers else ()
        return {
            f"{kind}/{name}": statistics.median(getattr(found, kind)[name] for found in self.regularisers)
            for kind in ("cosines", "norm_ratios", "step_cosines")
            for name in modules
        }

    def as_dict(self) -> dict[str, Any]:
        """Figures and what they were made of, as plain data for a file."""
        return {**self.figures(), **asdict(self)}


def watch(recipe: Recipe, steps: int, seed: int, notify: Callable[[str], None]) -> dict[str, Agreement]:
    """Make one run by each of the two and compare the estimators on the exact one, by name."""
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
    stage = set_up(recipe, steps, notify)
    losses = []
    watched = None
    for contestant in (EXACT, CHEAP):
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-") as scratch:
            trainer: Any = build(contestant, stage, Path(scratch))
            onlooking = replace(
                recipe.balance.modules,
                schedule="constant",
                measure=True,
                theory=False,
                amplification=trainer.coordination.amplification,
            )
            watchers = {DEFAULT: onlooking} if contestant is EXACT else {}
            callback = _Watch(trainer, watchers, partial(_tell, notify, f"seed {seed}, {contestant.name}", steps))
            trainer.add_callback(callback)
            trainer.train()
            losses.append(_held_out_loss(trainer, stage))
        watched = watched or callback.watched
    assert watched is not None
    found = {name: compare(watched, name) for name in watched.seen}
    for agreement in found.values() if not math.isnan(losses[0]) else ():
        agreement.losses.append((losses[1], losses[0]))
    return found


def _tell(notify: Callable[[str], None], run: str, steps: int, step: int) -> None:
    notify(f"fidelity: {run}, step {step} of {steps}")


def _held_out_loss(trainer: Any, stage: Stage) -> float:
    """Mean negative log-likelihood of the supervised tokens of samples that no step trained on; nan without any."""
    trained_on = set(stage.order)
    rest = [number for number in range(len(stage.samples)) if number not in trained_on][:HELD_OUT]
    total, tokens = 0.0, 0
    with inference(trainer.model):
        for first in range(0, len(rest), size := stage.recipe.train.batch_size):
            batch = trainer.data_collator([stage.samples[number] for number in rest[first : first + size]])
            batch = {name: value for name, value in batch.items() if name != TASK_IDS}
            said = supervised(trainer.model, trainer._prepare_inputs(batch))
            total -= said.log_probs_KV.gather(-1, said.labels_K[:, None]).sum().item()
            tokens += len(said.labels_K)
    return total / tokens if tokens else math.nan


class _Watch(TrainerCallback):
    """Lays a `Watched` over a Trainer's coordinator, which is there when training begins."""

    def __init__(self, trainer: Any, settings: Mapping[str, Any], notify: Callable[[int], None], every: int = EVERY):
        self.trainer = trainer
        self.settings = settings
        self.notify = notify
        self.every = every
        self.watched: Watched | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        acting = self.trainer.coordinator
        watching = {
            name: Coordinator(acting.model, acting.optimizer, settings, acting.division, state.max_steps)
            for name, settings in self.settings.items()
        }
        self.trainer.coordinator = self.watched = Watched(acting, watching, self.every)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.notify(state.global_step)


def compare(watched: Watched, name: str) -> Agreement:
    """What one estimator saw beside what the exact one saw."""
    exact, seen = watched.exact, watched.seen[name]
    found = Agreement(regularisers=watched.regularisers[name])
    for step, log_kappa in seen.log_kappas.items():
        if step in exact.log_kappas:
            found.log_kappas.append((log_kappa, exact.log_kappas[step]))
            found.same_span.append((log_kappa, _over(watched, step, seen.spans[step])))
    held: dict[str, float] | None = None
    for step, right in exact.factors.items():
        held = seen.factors.get(step, held)
        if held is not None:
            found.factor_errors += [held[name] - right[name] for name in right]
    return found


def _over(watched: Watched, step: int, span: int) -> float:
    """Log of the exact kappa~ over the `span` steps up to this one."""
    drifts = {number: watched.drifts[number] for number in range(step - span + 1, step + 1) if number in watched.drifts}
    window = watched.acting.window
    whole = BalanceWindow(window.modules, window.reference, len(drifts), window.average)
    for number, found in drifts.items():
        whole.push(number, found)
    averages = whole.averages()
    assert averages is not None
    return math.log(balance_coefficient(averages[LLM], averages[window.reference]))


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    if len(pairs) < 2:
        return None
    try:
        return statistics.correlation([one for one, _ in pairs], [other for _, other in pairs])
    except statistics.StatisticsError:
        return None


def _root_mean_square(errors: Sequence[float]) -> float | None:
    return math.sqrt(statistics.fmean(error**2 for error in errors)) if errors else None
