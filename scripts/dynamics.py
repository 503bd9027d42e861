"""Where the loop of measuring kappa and acting on it settles: simulated, and in real runs (docs/dynamics.md).

    python scripts/dynamics.py simulate                  # the table of the page's theory
    python scripts/dynamics.py run OUT --estimator exact # real runs of the embedded vision stack; takes hours
    python scripts/dynamics.py table OUT                 # what they measured, in Markdown
    python scripts/dynamics.py figure OUT docs           # and as figures (needs Chromium)

`run` makes one run for each window, learning-rate ratio (projector : LLM, around the recipe's rate as geometric mean)
and controller of `commit-clr`, and one `constant` run for each ratio, which measures and does not act. A run that is
in OUT already is left as it is, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, get_args

from dynamics_results import CONTROLLERS, RATIOS, WINDOWS, factors_figure, kappa_figure, load, settled, tables
from figures import photograph

from equipoise.bench.contestants import Contestant, build
from equipoise.bench.run import embedded
from equipoise.bench.stage import Stage, set_up
from equipoise.errors import DivergenceError
from equipoise.modules.coefficient import Average, BalanceWindow
from equipoise.modules.partition import LLM
from equipoise.modules.schedules import Coordinated, Servo
from equipoise.recipe import Estimator, Recipe
from equipoise.training.run import environment
from equipoise.training.run_directory import RunDirectory, write_json

PROJECTOR = "projector"

# ---------------------------------------------------------------------- simulation

LOOPS = ("mean", "pooled", "servo")
KAPPAS = (0.01, 0.1, 5.0, 15.0, 100.0, 1000.0)
CLOSE = math.log(1.5)
RUN_AWAY = math.log(1e6)


def simulated(loop: str, ratio: float, window: int, measurements: int | None = None) -> list[float]:
    """log kappa along a loop without noise, in which drift is quadratic in the learning rate.

    Args:
        loop: `mean` or `pooled` (the paper's controller with that average), or `servo` (pooled, its default gain);
            none has a smallest factor.
        ratio: r, the kappa of equal learning rates, where the loop begins.
        window: N.
        measurements: how many; 20 windows and no fewer than 400 when None.

    Returns:
        A value a measurement, and fewer where it runs away.
    """
    modules = [PROJECTOR, LLM]
    schedule = Servo(modules, window) if loop == "servo" else Coordinated(modules, window)
    average: Average = "mean" if loop == "mean" else "pooled"
    history = BalanceWindow(modules, PROJECTOR, window, average)
    seen: list[float] = []
    for step in range(measurements or max(400, 20 * window)):
        factors = schedule.factors()
        drifts = {PROJECTOR: factors[PROJECTOR] ** 2, LLM: ratio * factors[LLM] ** 2}
        seen.append(math.log(drifts[LLM] / drifts[PROJECTOR]))
        if abs(seen[-1] - seen[0]) > 2 * RUN_AWAY:
            break
        history.push(step, drifts)
        averages = history.averages()
        assert averages is not None
        schedule.measured(averages)
    return seen


def outcome(loop: str, ratio: float, window: int) -> int | str:
    """After how many measurements kappa is within a factor 1.5 of its fixed point for good, or what it does instead."""
    seen = simulated(loop, ratio, window)
    if max(map(abs, seen)) > RUN_AWAY:
        return "runs away"
    goal = 0.0 if loop == "servo" else math.log(ratio) / 3
    off = [number for number, value in enumerate(seen) if abs(value - goal) > CLOSE]
    last = off[-1] + 1 if off else 0
    return "swings" if last > len(seen) - 2 * window else last


def simulate() -> str:
    """The outcomes as a Markdown table."""
    lines = [
        f"| loop | r | {' | '.join(f'N = {window}' for window in WINDOWS)} |",
        f"| --- | --- |{' --- |' * len(WINDOWS)}",
    ]
    for loop in LOOPS:
        name = "`servo`" if loop == "servo" else f"`paper`, `{loop}`"
        for ratio in KAPPAS:
            cells = [str(outcome(loop, ratio, window)) for window in WINDOWS]
            lines.append(f"| {name} | {ratio:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------- real runs


@dataclass(frozen=True)
class Settings:
    """What all runs of a folder share."""

    steps: int
    batch_size: int
    estimator: str
    every: int
    samples: int
    average: str
    learning_rate: float
    min_factor: float
    seed: int


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        ratio: of the base learning rates, "projector:llm".
        controller: `paper`, `servo`, or `constant`, which does not act.
        window: N; None for `constant`.
    """

    ratio: str
    controller: str
    window: int | None = None

    @property
    def name(self) -> str:
        end = f"-w{self.window}" if self.window is not None else ""
        return f"{self.controller}-{self.ratio.replace(':', 'to')}{end}"

    def rates(self, rate: float) -> dict[str, float]:
        """The two base learning rates, whose geometric mean is `rate`."""
        projector, llm = map(float, self.ratio.split(":"))
        return {PROJECTOR: rate * math.sqrt(projector / llm), LLM: rate * math.sqrt(llm / projector)}

    def contestant(self, settings: Settings) -> Contestant:
        modules: dict[str, Any] = {"schedule": "constant", "theory": False}
        if self.window is not None:
            modules.update(schedule="commit-clr", controller=self.controller, window=self.window)
        modules.update(estimator=settings.estimator, every=settings.every, average=settings.average)
        return Contestant(self.name, modules=modules, train={"learning_rate": self.rates(settings.learning_rate)})


def plans() -> list[Plan]:
    """All runs, those that the others are compared with first."""
    return [Plan(ratio, "constant") for ratio in RATIOS] + [
        Plan(ratio, controller, window) for controller in CONTROLLERS for ratio in RATIOS for window in WINDOWS
    ]


def settings_of(recipe: Recipe, arguments: argparse.Namespace) -> tuple[Recipe, Settings]:
    """The recipe as the runs train it, and what is written down of it."""
    changes = {"max_steps": arguments.steps, "batch_size": arguments.batch_size, "seed": arguments.seed}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
    modules, rate = recipe.balance.modules, recipe.train.learning_rate
    assert isinstance(rate, float), "the two rates are made of one"
    return recipe, Settings(
        arguments.steps, arguments.batch_size, arguments.estimator or modules.estimator,
        arguments.every or modules.every, modules.samples, arguments.average or modules.average, rate,
        modules.min_factor, arguments.seed,
    )  # fmt: skip


def run(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """Make the runs that are not there yet, each on a copy of one model, and write each when it is done.

    A run that diverges is written like any other: its losses that are no numbers are null.
    """
    recipe, settings = settings_of(recipe, arguments)
    wanted = [plan for plan in plans() if any(fnmatch(plan.name, pattern) for pattern in arguments.only)]
    if not wanted:
        sys.exit(f"--only: found {' '.join(arguments.only)}; runs are {', '.join(plan.name for plan in plans())}")
    for found in load(arguments.out):
        if found["settings"] != asdict(settings):
            sys.exit(
                f"{arguments.out / found['name']}.json: found a run with {found['settings']}; this command makes runs "
                f"with {asdict(settings)}. Name another folder"
            )
    left = [plan for plan in wanted if not (arguments.out / f"{plan.name}.json").exists()]
    print(f"{len(wanted) - len(left)} of {len(wanted)} runs are there", flush=True)
    if not left:
        return
    stage = set_up(recipe, settings.steps, lambda line: print(line, flush=True))
    for number, plan in enumerate(left, 1):
        began = time.perf_counter()
        steps = train(plan, stage, settings)
        content = {**asdict(plan), "name": plan.name, "settings": asdict(settings), "environment": environment()}
        write_json(arguments.out / f"{plan.name}.json", {**content, "steps": steps})
        now = settled(content | {"steps": steps})
        kappa = f"kappa {now.kappa.median:.3g}" if now.kappa is not None else "no kappa"
        seconds = time.perf_counter() - began
        print(f"{plan.name} ({number} of {len(left)}): {now.verdict}, {kappa}, {seconds:.0f} s", flush=True)


def train(plan: Plan, stage: Stage, settings: Settings) -> list[dict[str, Any]]:
    """Make one run.

    Returns:
        A record a step: step, loss, kappa and kappa_average (None where nothing was measured), factors by module.
    """
    with tempfile.TemporaryDirectory(prefix="equipoise-dynamics-") as scratch:
        trainer = build(plan.contestant(settings), stage, Path(scratch))
        with suppress(DivergenceError):  # what came of it is in the log
            trainer.train()
        lines = [line for line in RunDirectory(Path(scratch)).metrics() if "loss" in line]
    del trainer
    gc.collect()  # a Trainer is a cycle, which holds its model and optimizer
    return [
        {
            "step": line["step"],
            "loss": line["loss"],
            "kappa": line.get("kappa"),
            "kappa_average": line.get("kappa_average"),
            "factors": {name: line[f"lr_factor/{name}"] for name in (PROJECTOR, LLM)},
        }
        for line in lines
    ]


# ---------------------------------------------------------------------- command line


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("simulate", help="the loop without noise, as a Markdown table")
    making = commands.add_parser("run", help="make the runs, those that OUT lacks")
    making.add_argument("out", type=Path)
    making.add_argument("--steps", type=int, default=120, help="optimizer steps of each run (120)")
    making.add_argument("--batch-size", type=int, default=4, help="samples a step (4)")
    making.add_argument("--estimator", choices=get_args(Estimator), help="the recipe's when left out")
    making.add_argument("--every", type=int, help="`sampled` measures each so-manieth step; the recipe's when left out")
    making.add_argument("--average", choices=["pooled", "mean"], help="over the window; the recipe's when left out")
    making.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="runs of these names; * and ? match")
    making.add_argument("--seed", type=int, default=0, help="of the samples' order and of dropout (0)")
    for name, text in (("table", "what was measured, as Markdown"), ("figure", "what was measured, as PNG")):
        showing = commands.add_parser(name, help=text)
        showing.add_argument("out", type=Path, help="of `run`")
        if name == "figure":
            showing.add_argument("folder", type=Path, help="of dynamics.png and dynamics-factors.png")
    return parser.parse_args(arguments)


def main(given: Sequence[str], recipe: Recipe | None = None) -> None:
    """Do what the command line says, on the embedded vision stack where no other recipe is given."""
    arguments = parse(given)
    if arguments.command == "simulate":
        print(simulate())
        return
    if arguments.command == "run":
        run(recipe or embedded("vision"), arguments)
        return
    runs = load(arguments.out)
    if not runs:
        sys.exit(f"{arguments.out}: no runs there; `run` makes them")
    if arguments.command == "table":
        print(tables(runs))
    else:
        photograph(kappa_figure(runs), arguments.folder / "dynamics.png", 1000, 420)
        photograph(factors_figure(runs), arguments.folder / "dynamics-factors.png", 1000, 620)


if __name__ == "__main__":
    main(sys.argv[1:])
