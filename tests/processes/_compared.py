"""Starts the trainings of `_training.py` in one process and in several, and compares what came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from processes._training import Case

SCRIPT = Path(__file__).with_name("_training.py")
#: What must agree between one process and several, by the beginning of its name in a record.
COMPARED = ("loss", "kappa", "task_kappa", "lr/", "drift/", "lookback_drift/", "task_loss/", "task_weight/")


def launch(cases: Sequence[Case], out: Path, processes: int, timeout: float = 600) -> None:
    """Train all cases in so many processes, by one launch."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "cases.json"
    file.write_text(json.dumps([asdict(case) for case in cases]), encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), str(SCRIPT), str(file), str(out)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])


def trained(folder: Path, processes: int) -> bool:
    """Whether a case has been trained in so many processes."""
    names = [f"metrics-of-{processes}.jsonl", *(f"rank-{rank}-of-{processes}.json" for rank in range(processes))]
    return all((folder / name).is_file() for name in names)


def records(folder: Path, rank: int, processes: int) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / f"rank-{rank}-of-{processes}.json").read_text())
    return found


@dataclass
class Comparison:
    """Several processes beside one.

    Attributes:
        same_on_all: whether every process recorded the very same numbers.
        same_names: whether one process recorded numbers of the same names at every step.
        largest: by kind of number, the largest difference from one process, relative.
        gradients: that of the gradients, by step, relative to their norm.
        measured: at how many steps there is a kappa.
        steps: how many there are.
    """

    same_on_all: bool
    same_names: bool
    largest: dict[str, float]
    gradients: list[float]
    measured: int
    steps: int


def compare(folder: Path, processes: int) -> Comparison:
    """Compare a case's runs in one process and in several."""
    own = [records(folder, rank, processes) for rank in range(processes)]
    alone = records(folder, 0, 1)
    lines = {count: _lines(folder / f"metrics-of-{count}.jsonl") for count in (1, processes)}
    largest: dict[str, float] = {}
    for kind in COMPARED:
        pairs = [
            (one[name], many[name])
            for one, many in zip(lines[1], lines[processes], strict=True)
            for name in one
            if name.startswith(kind) and name in many
        ]
        if pairs:
            largest[kind] = max(_difference(*pair) for pair in pairs)
    gradients = [torch.load(folder / f"gradients-of-{count}.pt", weights_only=True) for count in (1, processes)]
    return Comparison(
        same_on_all=all(other == own[0] for other in own[1:]),
        same_names=[one.keys() for one in alone] == [many.keys() for many in own[0]],
        largest=largest,
        gradients=[_distance(one, many) for one, many in zip(*gradients, strict=True)],
        measured=sum("kappa" in record for record in own[0]),
        steps=len(own[0]),
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _difference(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Of all gradients together, relative; infinite where one has others than the other."""
    if one.keys() != other.keys():
        return float("inf")
    apart = _norm(one[name] - other[name] for name in one)
    return float(apart / _norm(one.values()))


def _norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack([tensor.double().norm() for tensor in tensors]).norm()
