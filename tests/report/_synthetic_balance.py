"""Synthetic folders of `equipoise balance --out`: its files, with numbers like real ones, in a few milliseconds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.metrics.deltas import deltas
from equipoise.tasks.contribution import MINI, balance_tasks, full_run
from equipoise.tasks.plan import STL, alone
from equipoise.training.run_directory import RunDirectory

TASKS = ("vqa", "caption", "region", "box")
METRICS = ("exact_match", "cider", "exact_match", "iou")
MOVING = ("rlw", "dwa", "igbv1")
SETTINGS = {
    "temperature": 0.5, "alpha": 0.5, "mini_fraction": 0.125, "difficulty": "real", "on_degenerate": "error", "seed": 0,
}  # fmt: skip


def task_lines(tasks: Sequence[str], moving: str = "", steps: int = 60, kappa: bool = False) -> list[dict[str, Any]]:
    """A log with each task's loss, tokens and weight; `moving` names a weighter whose weights are not constant."""
    noise = random.Random(moving)
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        line: dict[str, Any] = {"step": step, "loss": 2 * math.exp(-step / 30) + 0.3}
        draws = [noise.gauss(0, 1) for _ in tasks]
        total = sum(map(math.exp, draws))
        for place, task in enumerate(tasks):
            present = (step + place) % 3 > 0
            line[f"task_tokens/{task}"] = (place + 1) * 12 if present else 0
            if present:
                line[f"task_loss/{task}"] = 3 * math.exp(-step / 25 - place) + 0.05 * noise.random() + 0.01
            by = {"rlw": len(tasks) * math.exp(draws[place]) / total, "": 1.0}
            line[f"task_weight/{task}"] = by.get(moving, 1 + 0.4 * math.sin(step / 20 + place))
            if kappa:
                line[f"task_kappa/{task}"] = math.exp(noise.gauss(place - 1, 0.3))
        lines.append(line)
    return lines


def probe_scores(tasks: Sequence[str] = TASKS, sign: float = 1.0) -> dict[str, dict[str, float]]:
    """Validation scores of `mini` and of each `TASK+mini`, all of one sign."""
    noise = random.Random(1)
    mini = {task: 0.3 + 0.05 * place for place, task in enumerate(tasks)}
    scores = {MINI: mini}
    for run in tasks:
        gains = {task: 0.35 if task == run else round(noise.uniform(-0.1, 0.2), 3) for task in tasks}
        scores[full_run(run)] = {task: mini[task] + gains[task] for task in tasks}
    return {run: {task: v - (sign < 0) * 2 for task, v in found.items()} for run, found in scores.items()}


def write_node(root: Path, name: str, lines: Sequence[Mapping[str, Any]] = (), **scores: Mapping[str, float]) -> str:
    """A finished node; `scores` are by split. Returns its folder's name."""
    folder = root / "nodes" / f"{name}-0123456789ab"
    folder.mkdir(parents=True)
    run = RunDirectory(folder)
    run.recipe_file.write_text("tasks: []\n", encoding="utf-8")
    run.done_file.write_text("{}", encoding="utf-8")
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for split, found in scores.items():
        tasks = {task: {"metric": "exact_match", "value": value, "samples": 64} for task, value in found.items()}
        text = json.dumps({"split": split, "tasks": tasks})
        (folder / f"scores-{split}.json").write_text(text, encoding="utf-8")
    return folder.name


def write_balance(
    root: Path,
    tasks: Sequence[str] = TASKS,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    compare: Sequence[str] = (STL, "ew", *MOVING, "cotbal-T2"),
    zero_for: str | None = None,
    sign: float = 1.0,
    **settings: Any,
) -> Path:
    """A finished balance.

    Args:
        root: the folder, made here.
        scores: of the probes; some are made where there are none.
        compare: methods with test scores besides `cotbal`.
        zero_for: the task on which one model per task scores 0.
        sign: -1 for scores of which a lower one is better, negated.
        settings: replace some of the recipe's.
    """
    probes = scores or probe_scores(tasks, sign)
    settings = SETTINGS | settings
    if settings["difficulty"] == "precise":
        pairs = {task: (probes[MINI][task] - 0.05, probes[full_run(task)][task]) for task in tasks}
        probes = {
            **probes,
            **{alone(task, whole): {task: pairs[task][whole]} for task in tasks for whole in (False, True)},
        }
    names = [MINI, *map(full_run, tasks)]
    found = balance_tasks(
        {run: probes[run] for run in names},
        on_degenerate=settings["on_degenerate"],
        precise=pairs if settings["difficulty"] == "precise" else None,
    )
    nodes = {run: write_node(root, run, validation=values) for run, values in probes.items()}
    balance = {"scores": probes, **found.as_dict(), "settings": settings, "nodes": nodes}
    (root / "balance.json").write_text(json.dumps(balance), encoding="utf-8")
    test: dict[str, dict[str, dict[str, float]]] = {}
    for number, method in enumerate(("cotbal", *compare)):
        test[method] = {
            task: {
                METRICS[place % 4]: sign * (0.5 + 0.1 * place) * (1.06 - 0.02 * number + 0.01 * ((place * number) % 3))
            }
            for place, task in enumerate(tasks)
        }
        if method == STL:
            continue
        nodes[method] = write_node(root, method, task_lines(tasks, method if method in MOVING else ""))
    undefined = []
    if zero_for is not None and STL in test:
        (metric,) = test[STL][zero_for]
        test[STL][zero_for][metric] = 0.0
        undefined = [f"task {zero_for}, {metric}"]
    known = {m: {t: s for t, s in of.items() if t != zero_for} for m, of in test.items()}
    compared = deltas(known, STL) if STL in test else {}
    results = {
        "test": test,
        "deltas": {
            name: {"delta_i": d.delta_i, "delta_e": d.delta_e, "tasks": dict(d.improvements)}
            for name, d in compared.items()
        },
        **({"degenerate": {"improvements": undefined}} if undefined else {}),
        "nodes": nodes,
    }
    (root / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return root
