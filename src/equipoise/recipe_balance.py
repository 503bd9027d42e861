"""The section `balance` of a recipe: how modules (CoMMIT) and tasks (CoTBal) are balanced."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.dataclasses import dataclass

from equipoise.recipe_values import SECTION, Count, Estimator, Real, Schedule, Seed, WeighterName


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Coordination:
    """How the modules of a model are balanced (CoMMIT).

    Attributes:
        schedule: `commit` (coordinated learning rates and regulariser), `commit-clr` (without the regulariser),
            `constant`, `encoder-lr-up`, `llm-lr-up`, `feature-cd`, `language-cd`.
        controller: `paper` (eq. 9) or `servo`, which drives kappa to 1; for `commit` and `commit-clr`.
        gain: of the servo; half of the largest stable one when None.
        window: N, in measurements.
        average: `pooled` (ratio of sums) or `mean` (mean of ratios, the paper's).
        estimator: `per-sample` (from the training backward's own gradients), `exact` (every step, whole batch),
            `sampled`, or `lookback` (the step before, on this batch). Where a model or a loss rules the first out,
            `sampled` takes its place, which is said.
        every: measure each `every`-th step (`per-sample`, `sampled`); when None, 1 and 5.
        samples: how many samples of the step's batch to measure on (`per-sample`, `sampled`).
        measure: measure even where the schedule does not need it.
        min_factor: no learning-rate factor falls below it.
        regulariser_weight: weight of the drift's gradient (`commit`).
        regulariser_cap: largest ratio of its norm to the loss gradient's, per module; null for none.
        regulariser_samples: how many samples of the step's batch the drift's gradient is taken on, an unbiased
            estimate of that on all; null for all.
        reference: the module S of kappa = d_llm / d_S; the first encoder module when None.
        amplification: measure this multiple of each step; lifts both drifts out of bf16's rounding. When None: 1, or
            8 where the trainer computes in a 16-bit type.
        theory: also log what the paper's theorems bound (one more forward a measurement).
        theory_every: steps between the forwards that this takes with `per-sample`, which has none of its own.
        seed: of the drawing of samples.
    """

    schedule: Schedule = "commit"
    controller: Literal["paper", "servo"] = "paper"
    gain: Annotated[Real, Field(gt=0)] | None = None
    window: Count = 20
    average: Literal["pooled", "mean"] = "pooled"
    estimator: Estimator = "per-sample"
    every: Count | None = None
    samples: Count = 8
    measure: bool = True
    min_factor: Annotated[Real, Field(ge=0, lt=1)] = 0.02
    regulariser_weight: Annotated[Real, Field(ge=0)] = 1.0
    regulariser_cap: Annotated[Real, Field(gt=0)] | None = 1.0
    regulariser_samples: Count | None = None
    reference: str | None = None
    amplification: Annotated[Real, Field(ge=1, le=1e6)] | None = None
    theory: bool = True
    theory_every: Count = 100
    seed: Seed = 0

    @classmethod
    def paper(cls, schedule: Schedule = "commit", window: int = 20) -> Coordination:
        """The paper's own form: exact drifts at every step, mean of ratios, no cap, no smallest factor."""
        return cls(
            schedule, window=window, average="mean", estimator="exact", regulariser_cap=None, min_factor=0.0
        )  # fmt: skip

    def warnings(self) -> list[str]:
        """What a user should know about these settings, one line each."""
        if self.schedule not in ("commit", "commit-clr"):
            return []
        notes = []
        if self.window < 5 and self.controller == "paper":
            notes.append(f"window is {self.window}: below 5 the coordination loop can diverge from a far start")
        if self.average == "mean":
            notes.append("average is mean: the mean of ratios can run away from a far start; pooled does not")
        return notes


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class TaskWeighting:
    """How the tasks of a mixture are weighted in the loss (CoTBal, eq. 2).

    Attributes:
        weighter: `ew` (all 1), `tla` (the mean of the tasks' mean losses), `rlw` (random), `dwa`, `igbv1` (dynamic),
            `fixed` and `cotbal` (as `weights` says).
        weights: task name to weight (`fixed`, `cotbal`); 1 for tasks that are not named.
        window: in steps (`dwa`, `igbv1`); the method's own when null, shorter in runs of fewer than 1,000 steps.
        temperature: of the softmax (`dwa`); the larger, the nearer all weights are to 1.
        seed: of the drawing (`rlw`).
    """

    weighter: WeighterName = "ew"
    weights: dict[str, Annotated[Real, Field(gt=0)]] | None = None
    window: Count | None = None
    temperature: Annotated[Real, Field(gt=0)] = 2.0
    seed: Seed = 0


class CoTBal(BaseModel):
    """How `equipoise balance` finds the weights of tasks (CoTBal, eq. 3-11); nothing else reads this section.

    Attributes:
        temperature: T of the three softmaxes that make weights; the larger, the nearer all weights are to 1. (That of
            `balance.tasks` is the weighter dwa's.)
        alpha: from 0 (difficulty alone) to 1 (contributions alone).
        mini_fraction: the share of a task that is its small subset; small tasks need more than the paper's 1/32.
        difficulty: `real`: from the runs that the contributions need anyway; `precise`: from two more runs for each
            task, on all of it and on its subset, without the others.
        on_degenerate: what an undefined contribution, difficulty or improvement does: `error` stops as soon as the
            scores that show it exist; `zero` takes 0 for it and says so wherever it shows.
        budget: find the weights for this share of the final run, by short stretches instead of the full probe runs;
            null: by the full ones.
    """

    model_config = SECTION

    temperature: Annotated[Real, Field(gt=0)] = 0.5
    alpha: Annotated[Real, Field(ge=0, le=1)] = 0.5
    mini_fraction: Annotated[Real, Field(gt=0, lt=1)] = 1 / 32
    difficulty: Literal["real", "precise"] = "real"
    on_degenerate: Literal["error", "zero"] = "error"
    budget: Annotated[Real, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _a_budget_has_no_further_runs(self) -> Self:
        if self.budget is not None and self.difficulty == "precise":
            raise ValueError("budget: difficulty precise needs runs of its own; real is allowed with it")
        return self

    @model_serializer(mode="wrap")
    def _unsaid_where_null(self, usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The hashes by which finished runs are found again are those of before there was a budget.
        plain: dict[str, Any] = usual(self)
        return {name: value for name, value in plain.items() if name != "budget" or value is not None}


class Balance(BaseModel):
    """How modules and tasks are balanced."""

    model_config = SECTION

    modules: Coordination = Coordination()
    tasks: TaskWeighting = TaskWeighting()
    cotbal: CoTBal = CoTBal()
