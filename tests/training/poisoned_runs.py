"""Runs with bad batches in them, for every schedule and weighter: what is left of them. Prints a table.

    python tests/training/poisoned_runs.py [--steps N] [--weighters NAME,...]

Each run tunes the tiny LLaVA of the tests for N steps (9), of which some are spoilt: a pixel that is nan, pixels that
are infinite, labels that supervise nothing. A run is whole where every weight, every number of the optimizer's, the
balance's and the weighter's state, and every loss of another step is finite, the spoilt steps were not made and no
other step was left out, and the log is JSON by the letter. Beside it, what transformers' own Trainer makes of the same
batches.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer

sys.path.insert(0, str(Path(__file__).parents[1]))

from equipoise import BalancedTrainer, Coordination, TaskWeighting
from equipoise.recipe import SCHEDULES
from training import _bad_batches as bad
from training import _checkpoint as tiny
from training._compare import learning

WEIGHTERS = ("ew", "tla", "rlw", "dwa", "igbv1", "fixed")
HOWS = (bad.nan_pixel, bad.infinite_pixels, bad.nothing_supervised)


def poisoned(folder: Path, steps: int, schedules: tuple[str, ...], weighters: tuple[str, ...]) -> dict[str, int]:
    """Run all; how many runs were whole, how many steps were spoilt and how many of them were made."""
    checkpoint, dataset = tiny.make_checkpoint(folder / "checkpoint"), tiny.make_dataset(folder / "data")
    found = dict.fromkeys(("runs", "whole", "spoilt", "made", "others left out", "plain runs", "plain whole"), 0)
    for how in HOWS:
        spoil = dict.fromkeys(range(3, steps, 5), how)
        for number, schedule in enumerate(schedules):
            for weighter in weighters:
                out = folder / f"{how.__name__}-{schedule}-{weighter}"
                weights = {"task0": 2.0} if weighter == "fixed" else None
                trainer: Any = bad.make(
                    BalancedTrainer, checkpoint, dataset, out, spoil, steps, samples=bad.two_tasks(dataset),
                    coordination=Coordination(schedule, every=1, samples=4, window=3),  # type: ignore[arg-type]
                    tasks=TaskWeighting(weighter, weights, window=2 if weighter in ("dwa", "igbv1") else None),
                )  # fmt: skip
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                lines = bad.strict_lines(out)
                unmade = {line["step"] for line in lines if "skipped_because" in line}
                others = [line["loss"] for line in lines if line["step"] not in spoil]
                balance = [trainer.coordinator.state_dict(), trainer._tasks.state_dict()]
                state = [balance, trainer.optimizer.state_dict()["state"]]
                whole = bad.finite(learning(trainer)) and bad.sound(state) and all(map(math.isfinite, others))
                found["runs"] += 1
                found["whole"] += whole and unmade == set(spoil) and len(lines) == steps
                found["spoilt"] += len(spoil)
                found["made"] += len(set(spoil) - unmade)
                found["others left out"] += len(unmade - set(spoil))
            if number == 0:
                plain = bad.make(Trainer, checkpoint, dataset, folder / f"{how.__name__}-plain", spoil, steps)
                plain.remove_callback(PrinterCallback)
                plain.train()
                found["plain runs"] += 1
                found["plain whole"] += bad.finite(learning(plain))
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--weighters", default=",".join(WEIGHTERS))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="equipoise-poisoned-") as folder:
        found = poisoned(Path(folder), arguments.steps, SCHEDULES, tuple(arguments.weighters.split(",")))
    for name, count in found.items():
        print(f"{name:>16}  {count}")


if __name__ == "__main__":
    main()
