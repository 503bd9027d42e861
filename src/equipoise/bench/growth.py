"""How the cost of balance grows with batch, answer length, vocabulary, modules and tasks, on a small random model."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from equipoise.bench.contestants import COORDINATED, DYNAMIC_WEIGHTS, REFERENCE
from equipoise.bench.steps import step_costs, time_steps
from equipoise.bench.synthetic import Size, make

#: What is varied: a field of `Size`, and its values.
AXES: dict[str, tuple[int, ...]] = {
    "batch": (2, 4, 8),
    "answer": (4, 16, 64, 256),
    "vocabulary": (1_024, 8_192, 32_768, 65_536),
    "modules": (2, 3),
    "tasks": (1, 4, 16, 64),
}
#: The size at which the other axes are measured; a batch of 8 for tasks, so that a step holds several of them.
USUAL: dict[str, Size] = {axis: Size(batch=8) if axis == "tasks" else Size() for axis in AXES}


def growth(
    rounds: int,
    notify: Callable[[str], None],
    axes: Mapping[str, Sequence[int]] = AXES,
) -> dict[str, list[dict[str, Any]]]:
    """Measure every value of every axis.

    Returns:
        By axis, for each value: `value`; `reference`, the step of `ew, constant` over that of the axis' first value
        (medians of runs one after the other, not alternated); and `costs`, by contestant, within the value's own run.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    contestants = (REFERENCE, DYNAMIC_WEIGHTS, *COORDINATED)
    with tempfile.TemporaryDirectory(prefix="equipoise-bench-") as scratch, _index_in(Path(scratch) / "index"):
        for axis, values in axes.items():
            first = 0.0
            for value in values:
                recipe = make(Path(scratch) / axis / str(value), replace(USUAL[axis], **{axis: value}))
                steps = time_steps(recipe, contestants, rounds, partial(_notify, notify, f"growth, {axis} {value}"))
                seconds = statistics.median(step.seconds for step in steps[REFERENCE.name])
                first = first or seconds
                costs = {name: cost.as_dict() for name, cost in step_costs(steps).items()}
                found.setdefault(axis, []).append({"value": value, "reference": seconds / first, "costs": costs})
    return found


def _notify(notify: Callable[[str], None], where: str, line: str) -> None:
    notify(f"{where}: {line}")


@contextmanager
def _index_in(folder: Path) -> Iterator[None]:
    """Inside, data is indexed there and not in the user's cache."""
    before = os.environ.get("EQUIPOISE_INDEX")
    os.environ["EQUIPOISE_INDEX"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["EQUIPOISE_INDEX"]
        else:
            os.environ["EQUIPOISE_INDEX"] = before
