"""A synthetic comparison: the folder that `equipoise compare` leaves, with logs like real ones, in milliseconds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from _synthetic_runs import around, log_lines, write_run

CENTRES = {"constant": 1.2, "commit-clr": 0.1, "commit": -0.1, "llm-lr-up": 3.0}


def write_comparison(
    folder: Path,
    methods: Sequence[str] = ("constant", "commit-clr", "commit"),
    seeds: Sequence[int] = (0, 1, 2),
    tasks: Sequence[str] = ("vqa", "caption"),
    done: int | None = None,
    steps: int = 60,
    **plain: Any,
) -> Path:
    """A comparison whose first `done` runs are finished; all when None. `plain` replaces what comparison.json holds."""
    runs = []
    order = ((method, seed) for seed in seeds for method in methods)
    for place, (method, seed) in enumerate(islice(order, done)):
        noise = random.Random(place)
        node = f"{method.replace('/', '_')}@{seed}-{place:012x}"
        lines = log_lines({"llm": around(CENTRES.get(method, 0.5), 0.5, steps, seed=place)}, moving="commit" in method)
        for line in lines:
            if "loss" not in line:
                continue
            line["loss"] += 0.02 * noise.random() - 0.05 * methods.index(method)
            line |= {f"task_loss/{task}": line["loss"] * (1 + i) for i, task in enumerate(tasks)}
            line |= {f"task_weight/{task}": 1.0 for task in tasks}
            line |= {f"theory/H/{module}": 0.3 * math.exp(noise.gauss(0, 0.2)) for module in ("projector", "llm")}
        write_run(folder / "nodes" / node, lines, method)
        share = 0.6 + 0.05 * methods.index(method) + 0.01 * seed + 0.004 * noise.random()
        runs.append(
            {
                "method": method,
                "seed": seed,
                "nodes": [node],
                "scores": {task: {"exact_match": share + 0.1 * i} for i, task in enumerate(tasks)},
                "validation_loss": 0.5 - 0.02 * methods.index(method) + 0.01 * noise.random(),
                "kappa": math.exp(CENTRES.get(method, 0.5) + noise.gauss(0, 0.1)),
                "std_log_kappa": 0.5 + 0.1 * noise.random(),
                "step_time": 1.2 + 0.02 * noise.random(),
            }
        )
    found = {
        "baseline": methods[0],
        "methods": list(methods),
        "seeds": list(seeds),
        "split": "test",
        "settings": {method: {"balance.modules.schedule": method} for method in methods},
        "runs": runs,
        **plain,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(found), encoding="utf-8")
    return folder
