"""CoMMIT around any training loop: three calls a step, and no knowledge of who makes them.

    coordinator.observe(inputs)          # before each micro-batch's forward
    loss(inputs).backward()
    coordinator.before_step()            # after the last backward, before clipping
    optimizer.step()
    record = coordinator.after_step()    # before the learning-rate scheduler's step

`before_step` adds the regulariser and sets the learning rates; `after_step` measures and puts the base rates back, so
that any scheduler composes. Parameters are swapped only inside these two, where no autograd graph is alive.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from equipoise.errors import PartitionError
from equipoise.modules import theory
from equipoise.modules.coefficient import BalanceWindow, balance_coefficient
from equipoise.modules.measuring import Measuring
from equipoise.modules.partition import LLM, Partition, split_param_groups
from equipoise.modules.processes import ALONE, Processes
from equipoise.modules.regulariser import apply_regulariser
from equipoise.modules.schedules import build_schedule
from equipoise.modules.shards import gathered, require_known, reshard, scattered
from equipoise.modules.snapshot import Values, snapshot
from equipoise.modules.step_guard import BatchStatistics, Refusal, StepGuard, hold_still, overflow
from equipoise.modules.tally import Drifts
from equipoise.modules.undo import LastStep, can_undo
from equipoise.recipe import Coordination

logger = logging.getLogger(__name__)
Record = dict[str, float]


class Coordinator:
    """Measures the balance between a model's modules while it trains, and acts on it as `coordination` says.

    Args:
        model: the model whose forward is measured; called as `model(**inputs)`.
        optimizer: its parameter groups are divided by module, in place, unless they already are. Any torch optimizer
            whose step is proportional to its group's learning rate.
        coordination: the settings.
        division: the model's modules.
        total_steps: optimizer steps of the run, where known.
        processes: which train this model together, each on batches of its own, so that gradients are the same in all
            when `before_step` is called. What is measured is that of all their samples, and all find the same.

    Raises:
        PartitionError: fewer than two modules learn while the schedule is not `constant`, or no such reference.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        coordination: Coordination,
        division: Partition,
        total_steps: int | None = None,
        processes: Processes = ALONE,
    ):
        self.model = model
        self.optimizer = optimizer
        self.settings = coordination
        self.division = division
        self.processes = processes
        require_known(model, division.parameters(), processes.count)
        modules = list(division.trainable)
        self.balanced = len(modules) >= 2 and LLM in modules
        if coordination.schedule != "constant":
            division.require_balance(f"schedule {coordination.schedule}")
        if any("module" not in group for group in optimizer.param_groups):
            split_param_groups(optimizer, division)
        self.schedule = build_schedule(coordination, modules, total_steps)
        self.measures = self.balanced and (coordination.measure or self.schedule.needs_measurement)
        self.regularises = coordination.schedule == "commit"
        if not modules:
            raise PartitionError("no module of the model has trainable parameters")
        if coordination.reference is not None and coordination.reference not in modules:
            raise PartitionError(f"reference: found {coordination.reference!r}; there are {', '.join(modules)}")
        self.reference = coordination.reference or modules[0]
        self.measuring = Measuring(model, division, coordination, processes, self.measures or self.regularises)
        self.window = BalanceWindow(modules, self.reference, coordination.window, coordination.average)
        self.guard = StepGuard(says=processes.number == 0)
        self._statistics = BatchStatistics(model)
        self.step = 0
        self.skipped = 0
        self._gamma = 0.0
        self._kappa_average: float | None = None
        # theta_{t-1}, for the look-back: kept, or how to get it back from the optimizer's state.
        self._undoes = self._can_undo()
        self._previous: Values | None = None
        self._last_step: LastStep | None = None
        self._base_rates: list[float] = []
        self._before: Values | None = None
        self._coming_step: LastStep | None = None
        self.refusal: Refusal | None = None
        self._loss_scale: float | None = None
        self._record: Record = {}

    @property
    def estimator(self) -> str:
        """That is used: `sampled` where `per-sample` was asked for and cannot be."""
        return self.measuring.estimator

    @property
    def amplification(self) -> float:
        """The multiple of each step that is measured now."""
        return self.measuring.amplification

    # ------------------------------------------------------------------ the three calls

    def observe(self, inputs: Mapping[str, Any]) -> None:
        """Remember a micro-batch, before its forward. `inputs` has `labels` and lies where the model does.

        With `forward.GROUPS` among them, kappa is also measured on the samples of each group (`group_kappa/NUMBER`).
        """
        self._statistics.keep()
        if self.measures or self.regularises:
            self.measuring.observe(inputs, self.step)

    def before_step(self, loss_scale: float | None = None, supervises: bool = True) -> None:
        """Prepare the gradients and the learning rates of the coming optimizer step, or see to it that none is made.

        Args:
            loss_scale: what a gradient scaler multiplied the loss by; None where there is none.
            supervises: whether any token of the step was supervised, in any process.

        Raises:
            DivergenceError: the steps so far leave nothing to go on with (`equipoise.modules.step_guard`).
        """
        self.guard.require_going_on()
        record = self._record = {}
        modules = self.division.trainable
        self.measuring.finish()
        self._loss_scale, loss_scale = loss_scale, loss_scale or 1.0
        norms: dict[str, float] = {}
        sizes: dict[str, float] = {}
        for name, module in modules.items():
            norms[name], sizes[name] = module.grad_norm() / loss_scale, module.norm()
            record[f"grad_norm/{name}"] = norms[name]
            record[f"grad_norm_relative/{name}"] = norms[name] / sizes[name] if sizes[name] > 0 else 0.0
        moving = {name: norm for name, norm in norms.items() if name not in self.schedule.waiting()}
        self.refusal = self.guard.judge(moving, sizes, supervises, self._loss_scale)
        if self.refusal is not None:
            self._set_rates()
            hold_still(self.optimizer, has_scaler=self._loss_scale is not None)
            self._statistics.put_back()
            self._before = self._coming_step = None
            return
        previous = self._parameters_before_last_step()
        if previous is not None:
            drifts, gradients = self.measuring.look_back(previous, self.step, self.regularises)
            for name, drift in drifts.by_module.items():
                record[f"lookback_drift/{name}"] = drift
            if self.regularises:
                weight, cap = self.settings.regulariser_weight, self.settings.regulariser_cap
                loss_norms = {name: record[f"grad_norm/{name}"] * loss_scale for name in modules}
                norms = apply_regulariser(self.division, gradients, weight, cap, loss_scale, loss_norms)
                record.update({f"regulariser_norm/{name}": norm for name, norm in norms.items()})
            if self.estimator == "lookback" and self.measures:
                self._take(drifts, self.step)
        for name in self.schedule.waiting():
            for parameter in modules[name].trainable.values():
                parameter.grad = None
        self._set_rates()
        # Warm-up begins at a rate of 0: no step, no drift, nothing to measure.
        moves = any(group["lr"] > 0 for group in self.optimizer.param_groups)
        keeps = self._measures_now or (self._looks_back and not self._undoes)
        self._before = snapshot(dict(self.division.parameters())) if moves and keeps else None
        # A forward without a backward leaves weights gathered, which the next one would take for those after the step.
        reshard(self.model)
        undoes = moves and self._looks_back and self._undoes
        self._coming_step = LastStep.about_to_be(self.optimizer) if undoes else None

    def after_step(self, was_skipped: bool = False) -> Record:
        """Measure the step that was just made and put the base learning rates back.

        Args:
            was_skipped: the optimizer made no step (a gradient scaler found an overflow).

        Returns:
            What is worth logging: gradient norms, learning rates, factors, and after a measurement drifts and kappa.
        """
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate
        if was_skipped and self.refusal is None:
            self.refusal = overflow(self._loss_scale)
        made = self.refusal is None
        moved = self._before if made else None
        if moved is not None and self._measures_now:
            drifts, entries = self.measuring.measure(moved, self.step)
            self._record.update(entries)
            if drifts.theory is not None:
                for name, module in self.division.trainable.items():
                    self._record[f"theory/update_norm/{name}"] = module.moved(moved)
            self._take(drifts, self.step + 1)
        self._previous = moved if self._looks_back and not self._undoes else None
        self._last_step = self._coming_step if made else None
        self.step += 1
        if made:  # weights that stand still because of this are not weights that stabilise
            self.schedule.stepped(self.division.trainable)
        self.guard.note(self.step, self.refusal)
        if not made:
            self._record["steps_skipped"] = self.guard.skipped
        self.close()
        return self._record

    def close(self) -> None:
        """Let go of the step's batches and weights; take off the model what one that was broken off left there."""
        self._statistics.forget()
        self.measuring.forget()
        self._before = None

    def follow(self, model: nn.Module) -> None:
        """Go on with the model as it was prepared for training, which may have replaced its parameters.

        Args:
            model: whose `optimizer` holds the parameters that it has now.

        Raises:
            PartitionError: a parameter is gone, or divided by something else than FSDP2.
        """
        if not self.division.follow(model) and model is self.model:
            return
        self.model = model
        require_known(model, self.division.parameters(), self.processes.count)
        self._undoes = self._can_undo()
        self.measuring.follow(model)

    # ------------------------------------------------------------------ inside

    def _can_undo(self) -> bool:
        return self.regularises and self.division.mostly_trains and can_undo(self.optimizer)

    @property
    def _looks_back(self) -> bool:
        if self.schedule.waiting():
            return False
        return self.regularises or (self.measures and self.estimator == "lookback")

    @property
    def _measures_now(self) -> bool:
        if not self.measures or self.estimator == "lookback" or self.schedule.waiting():
            return False  # a module that waits has no drift to compare with
        return self.step % self.measuring.every == 0

    def _set_rates(self) -> None:
        factors, waiting = self.schedule.factors(), self.schedule.waiting()
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * factors[group["module"]]
        for name in self.division.trainable:
            rate = max((group["lr"] for group in self.optimizer.param_groups if group["module"] == name), default=0.0)
            self._record[f"lr/{name}"] = 0.0 if name in waiting else rate
            self._record[f"lr_factor/{name}"] = 0.0 if name in waiting else factors[name]

    def _parameters_before_last_step(self) -> Values | None:
        """theta_{t-1}; None before the first step, and after one that was not made."""
        if self._last_step is None:
            return self._previous
        return self._last_step.undone(self.optimizer, dict(self.division.parameters()))

    def _take(self, drifts: Drifts, step: int) -> None:
        """Enter one measurement into the window, the schedule and the record."""
        record = self._record
        for name, drift in drifts.by_module.items():
            record[f"drift/{name}"] = drift
        if not drifts.usable:
            self._skip(drifts, step)
            return
        self.window.push(step, drifts.by_module)
        averages = self.window.averages()
        assert averages is not None
        self.schedule.measured(averages)
        for name in drifts.by_module:
            if name != self.reference:
                own = balance_coefficient(drifts.by_module[name], drifts.by_module[self.reference])
                average = balance_coefficient(averages[name], averages[self.reference])
                suffix = "" if name == LLM else f"/{name}"
                record[f"kappa{suffix}"], record[f"kappa_average{suffix}"] = own, average
        for group, found in drifts.by_group.items():
            if LLM in found and self.reference in found and found[self.reference] > drifts.floor:
                record[f"group_kappa/{group}"] = balance_coefficient(found[LLM], found[self.reference])
        record["window_span"] = self.window.span
        if "kappa_average" in record:
            factor = theory.convergence_factor(record["kappa_average"], self._kappa_average)
            if factor is not None:
                record["theory/lambda"] = factor
            self._kappa_average = record["kappa_average"]
        norms = {name: record[f"grad_norm/{name}"] for name in drifts.by_module}
        entries, self._gamma = theory.report(drifts, self.reference, norms, self._gamma)
        record.update(entries)

    def _skip(self, drifts: Drifts, step: int) -> None:
        """Leave a measurement out: a zero, non-finite or sub-floor drift says nothing about balance."""
        self.skipped += 1
        if self.skipped == 1 and self.processes.number == 0:
            shown = ", ".join(f"{name} {drift:.3g}" for name, drift in drifts.by_module.items())
            logger.warning(
                "step %d: no balance measured, drifts are %s (usable above %.2g); such steps are left out and counted",
                step, shown, drifts.floor,
            )  # fmt: skip
        self._record["measurements_skipped"] = self.skipped
        self.schedule.skipped()

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on bit for bit: numbers, and whole tensors.

        Of a model that is divided over processes all must call this; each gets the same.
        """
        return {
            "step": self.step,
            **self.measuring.state_dict(),
            "skipped": self.skipped,
            "guard": self.guard.state_dict(),
            "gamma": self._gamma,
            "kappa_average": self._kappa_average,
            "window": self.window.state_dict(),
            "schedule": self.schedule.state_dict(),
            "previous": gathered(self._previous) if self._previous is not None else None,
            "last_step": self._last_step.state_dict() if self._last_step is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.step, self.skipped = state["step"], state["skipped"]
        if "guard" in state:
            self.guard.load_state_dict(state["guard"])
        self.measuring.load_state_dict(state)
        self._gamma, self._kappa_average = state["gamma"], state["kappa_average"]
        self.window.load_state_dict(state["window"])
        self.schedule.load_state_dict(state["schedule"])
        last_step = state.get("last_step")
        self._last_step = LastStep(**last_step) if last_step is not None else None
        self._previous = None
        if state["previous"] is not None:
            self._previous = scattered(state["previous"], dict(self.division.parameters()))
