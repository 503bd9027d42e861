"""Every schedule with every task weighter, and every estimator over 50 steps, in 1, 2 and 4 processes by DDP.

    PYTHONPATH=tests python tests/processes/matrix.py OUT [--processes 2,4] [--steps 6] [--only NAME]

Prints a table of the largest relative differences from one process, in losses and in kappas, in float64; those of the
first step's gradients in float32; and whether all processes recorded the same numbers to the bit. Exits with 1 where
a difference is larger than is promised (docs/reliability.md). What is in OUT already is not trained again, so that the
same command goes on where it was stopped. About half an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from equipoise.recipe import SCHEDULES
from equipoise.tasks.weighters import WEIGHTERS
from processes._compared import Comparison, compare, launch, trained
from processes._training import Case

#: Relative, of losses and kappas in float64, and of the first step's gradients in float32.
PROMISED, PROMISED_GRADIENTS = 1e-6, 1e-5
ESTIMATORS = ("exact", "per-sample", "sampled", "lookback")


def long_cases(steps: int = 50) -> list[Case]:
    """commit by every estimator, with processes that lack what others have, by attach(), and in float32."""
    commit = {"schedule": "commit", "window": 5}
    cases = [
        Case(f"commit, {estimator}", {**commit, "estimator": estimator, "every": 2 if estimator == "sampled" else None},
             steps=steps)
        for estimator in ESTIMATORS
    ]  # fmt: skip
    return [
        *cases,
        Case("commit, exact, awkward batches", {**commit, "estimator": "exact"}, steps=steps, awkward=True),
        Case("commit, per-sample, awkward batches", commit, steps=steps, awkward=True),
        Case("commit by the servo, on some samples", {**commit, "controller": "servo", "regulariser_samples": 8},
             steps=steps),
        Case("commit by attach(), no task weights", commit, tasks=None, dtype="float32", steps=4, attached=True,
             optimizer="sgd", learning_rate=0.05),
        Case("commit, exact, float32", {**commit, "estimator": "exact"}, dtype="float32", steps=4, optimizer="sgd",
             learning_rate=0.05),
    ]  # fmt: skip


def short_cases(steps: int = 6) -> list[Case]:
    """Every schedule with every weighter."""
    weights = {"a": 1.5, "b": 0.5, "c": 1.0}
    return [
        Case(
            f"{schedule}, {weighter}",
            {"schedule": schedule, "window": 3},
            {"weighter": weighter, **({"weights": weights} if weighter in ("fixed", "cotbal") else {})},
            steps=steps,
        )
        for schedule in SCHEDULES
        for weighter in WEIGHTERS
    ]


def wrong(case: Case, found: Comparison) -> list[str]:
    """What is not as promised."""
    flaws = [] if found.same_on_all else ["the processes recorded different numbers"]
    if not found.same_names:
        flaws.append("one process recorded numbers of other names")
    if case.dtype == "float32":
        return flaws + [f"gradients differ by {d:.1e}" for d in found.gradients[:1] if d > PROMISED_GRADIENTS]
    return flaws + [f"{kind} differs by {d:.1e}" for kind, d in found.largest.items() if d > PROMISED]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", default="2,4")
    parser.add_argument("--steps", type=int, default=6, help="of each pair of schedule and weighter")
    parser.add_argument("--long-steps", type=int, default=50, help="of the other cases")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    given = parser.parse_args(arguments)
    counts = [int(number) for number in given.processes.split(",")]
    cases = [case for case in [*long_cases(given.long_steps), *short_cases(given.steps)] if given.only in case.name]
    for count in (1, *counts):
        missing = [case for case in cases if not trained(given.out / case.name, count)]
        if missing:
            launch(missing, given.out, count, timeout=4 * 3600)
    table = Table(
        "case", "steps", "kappas", "processes", "same to the bit", "loss", "kappa", "first gradients", "flaws"
    )
    flawed = False
    for case in cases:
        for count in counts:
            found = compare(given.out / case.name, count)
            flaws = wrong(case, found)
            flawed |= bool(flaws)
            loss = max(d for kind, d in found.largest.items() if "loss" in kind)
            kappas = [d for kind, d in found.largest.items() if "kappa" in kind]
            table.add_row(
                case.name, str(found.steps), str(found.measured), str(count), "yes" if found.same_on_all else "NO",
                f"{loss:.1e}", f"{max(kappas):.1e}" if kappas else "-", f"{found.gradients[0]:.1e}", "; ".join(flaws),
            )  # fmt: skip
    Console(width=200).print(table)
    return int(flawed)


if __name__ == "__main__":
    sys.exit(main())
