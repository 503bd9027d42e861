"""Trains with a batch that goes bad in one process alone; saves what every process was left with.

`main` is the training in each of several processes (see `processes/_forked_group.py`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from equipoise import BalancedTrainer, Coordination
from training import _bad_batches as bad
from training._compare import learning


def main(checkpoint: str, data: str, out: str) -> None:
    rank = int(os.environ["RANK"])
    spoil = {2: bad.nan_pixel, 4: bad.nothing_supervised} if rank == 1 else {}
    trainer = bad.make(
        BalancedTrainer, Path(checkpoint), Path(data), Path(out) / "log", spoil, steps=5,
        coordination=Coordination("commit", every=1, samples=4, window=3),
    )  # fmt: skip
    trainer.train()
    assert isinstance(trainer, BalancedTrainer)
    assert trainer.coordinator is not None
    torch.save(learning(trainer), Path(out) / f"rank-{rank}.pt")
    state = trainer.coordinator.state_dict()
    kept = {name: state[name] for name in ("guard", "window", "kappa_average", "schedule")}
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(kept), encoding="utf-8")
