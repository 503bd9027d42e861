"""The memory that steps need, each contestant in a process of its own.

    python -m equipoise.bench.memory RECIPE NAME STEPS

The process loads the model, builds the Trainer, touches every weight, and asks the system to forget the peak so far.
What is resident then is the base; the peak of `train()` is what counts. On CUDA, torch's own counters tell as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from equipoise.bench.contestants import Contestant, build, named
from equipoise.bench.stage import set_up
from equipoise.errors import RunError
from equipoise.quiet import quieten
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe

STEPS = 3  # the first measures, the second looks back, the third finds all that is kept between steps
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """Bytes.

    Attributes:
        base, peak: resident, before the first step and at most.
        device: what torch allocated on a CUDA device at most beyond what was there before; 0 without one.
    """

    base: int
    peak: int
    device: int


def peak_of(recipe: Recipe, contestant: Contestant, steps: int = STEPS) -> Peak:
    """Train a few steps in a process of its own.

    Raises:
        RunError: the process ended otherwise than it should.
    """
    # Settings of the allocator that keep what is freed would hide how much is needed at once.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    with tempfile.TemporaryDirectory(prefix="equipoise-bench-") as scratch:
        file = Path(scratch) / "recipe.yaml"
        file.write_text(recipe.to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "equipoise.bench.memory", str(file), contestant.name, str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"bench memory, {contestant.name}: its process ended with status {done.returncode} ({last})")
    return Peak(**json.loads(lines[-1]))


def memory_ratios(peaks: Mapping[str, Peak]) -> dict[str, dict[str, float | None]]:
    """By name, the peak over the first one's: `steps` beyond the loaded model, `process` in all, `device` on CUDA."""
    first = next(iter(peaks.values()))
    return {
        name: {
            "steps": _ratio(found.peak - found.base, first.peak - first.base),
            "process": _ratio(found.peak, first.peak),
            "device": _ratio(found.device, first.device),
        }
        for name, found in peaks.items()
    }


def _ratio(value: int, reference: int) -> float | None:
    return value / reference if reference > 0 else None


def _train(recipe: Recipe, contestant: Contestant, steps: int) -> Peak:
    stage = set_up(recipe, steps, lambda _: None)
    with tempfile.TemporaryDirectory(prefix="equipoise-bench-") as scratch:
        trainer = build(contestant, stage, Path(scratch))
        stage.model = None
        for tensor in (*trainer.model.parameters(), *trainer.model.buffers()):  # type: ignore[union-attr]
            tensor.sum()  # weights are mapped from their file and would come in with the first step
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            allocated = torch.cuda.memory_allocated()
        base = _forget_the_peak()
        trainer.train()
        device = torch.cuda.max_memory_allocated() - allocated if torch.cuda.is_available() else 0
        return Peak(base, _peak(), device)


def _forget_the_peak() -> int:
    """Resident bytes now; where the system can be asked to, it forgets that there were more."""
    try:
        FORGET.write_text("5", encoding="ascii")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    """The most bytes that were resident."""
    if STATUS.is_file():
        return _status("VmHWM")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _status(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RunError(f"{STATUS} has no {field}; peak memory cannot be measured on this system")


def main(arguments: Sequence[str]) -> None:
    """Be the process of one contestant; the last line printed is its `Peak` as JSON."""
    file, name, steps = arguments
    found: dict[str, Any] = asdict(_train(load_recipe(Path(file)), named(name), int(steps)))
    print(json.dumps(found))


if __name__ == "__main__":
    quieten()
    main(sys.argv[1:])
