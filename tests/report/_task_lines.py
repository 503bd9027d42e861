"""A log with tasks in it, one of which starves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TASKS = {"vqa": (2.0, 0.4, 90, 1.0), "captions": (3.0, 0.9, 110, 1.0), "chat": (2.5, 2.45, 20, 1.0)}
"""First loss, last loss, tokens a step and weight of each."""


def with_tasks(
    lines: list[dict[str, Any]], tasks: Mapping[str, tuple[float, float, int, float]]
) -> list[dict[str, Any]]:
    """The log with tasks: first loss, last loss, tokens a step and weight of each."""
    steps = [line for line in lines if "loss" in line]
    for place, line in enumerate(steps):
        for task, (first, last, tokens, weight) in tasks.items():
            loss = first * (last / first) ** (place / (len(steps) - 1))
            line |= {f"task_loss/{task}": loss, f"task_tokens/{task}": tokens, f"task_weight/{task}": weight}
    return lines
