"""Synthetic run directories: the files of a run, with numbers like a real one's, in a few milliseconds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from equipoise.training.run_directory import RunDirectory

BASE_RATE = 1e-4


def log_lines(
    log_kappas: Mapping[str, Sequence[float]], reference: str = "projector", every: int = 1, moving: bool = False
) -> list[dict[str, Any]]:
    """A log with a measurement every `every`-th step.

    Args:
        log_kappas: log of d_m over the reference's drift, by module, a value a measurement.
        moving: whether learning-rate factors move, as under a coordinated schedule.
    """
    noise = random.Random(0)
    modules = [reference, *log_kappas]
    count = len(next(iter(log_kappas.values())))
    lines: list[dict[str, Any]] = []
    averages: list[float] = []
    for step in range(1, count * every + 1):
        line: dict[str, Any] = {"step": step, "epoch": step / (count * every)}
        line["loss"] = 2.4 * math.exp(-step / 60) + 0.4 + noise.gauss(0, 0.08)
        decay = BASE_RATE * (0.5 + 0.5 * math.cos(math.pi * step / (count * every)))
        for place, module in enumerate(modules):
            factor = 1 + (-1) ** place * 0.6 * (1 - math.exp(-step / 40)) if moving else 1.0
            line[f"grad_norm/{module}"] = 0.8 + 0.1 * noise.random()
            line[f"grad_norm_relative/{module}"] = 0.02 * (1 + place) * math.exp(noise.gauss(-step / 300, 0.2))
            line[f"lr/{module}"], line[f"lr_factor/{module}"] = decay * factor, factor
        if step % every == 0:
            row = {module: values[step // every - 1] for module, values in log_kappas.items()}
            base = 1e-5 * math.exp(noise.gauss(0, 0.3) - step / 200)
            line |= {f"drift/{module}": base * math.exp(row.get(module, 0.0)) for module in modules}
            for module, value in row.items():
                suffix = "" if module == "llm" else f"/{module}"
                line[f"kappa{suffix}"] = math.exp(value)
                past = log_kappas[module][max(0, step // every - 20) : step // every]
                line[f"kappa_average{suffix}"] = sum(map(math.exp, past)) / len(past)
            if "llm" in row:
                averages.append(line["kappa_average"])
            line["theory/lambda"] = (averages[-1] + 1) / (averages[-2] + 1) if len(averages) > 1 else None
            line |= {f"theory/gradient_bound_holds/{module}": float(noise.random() < 0.9) for module in modules[-2:]}
            line |= {f"theory/H/{module}": 10 + place + step / 100 for place, module in enumerate(modules)}
            line |= {"theory/triangle_holds": float(noise.random() < 0.7), "theory/lipschitz_gamma": 13.2}
        lines.append(line)
        if step % (count * every // 4 or 1) == 0:
            lines.append({"step": step, "validation_loss": 2.2 * math.exp(-step / 60) + 0.45})
    return lines


def around(centre: float, spread: float, count: int = 60, seed: int = 0) -> list[float]:
    """log kappas: independent noise about a centre."""
    noise = random.Random(seed)
    return [noise.gauss(centre, spread) for _ in range(count)]


def write_run(
    path: Path, lines: Sequence[Mapping[str, Any]], schedule: str = "constant", task: str = "vqa", **tables: Any
) -> RunDirectory:
    """A finished and evaluated run. `tables` replaces `scores`, `data`, `modules` or `recipe`.

    Its data is in the folder that holds the run.

    `predictions`, by task, is a list of lines.
    """
    path.mkdir(parents=True)
    run = RunDirectory(path)
    recipe = tables.get("recipe") or {
        "model": {"path": "embedded:smol-vlm", "lora": {"rank": 16, "alpha": 32}},
        "tasks": [{"name": "vqa", "reader": "jsonl", "path": str(path.parent), "metric": "exact_match"}],
        "balance": {"modules": {"schedule": schedule, "controller": "paper", "window": 20, "estimator": "exact"}},
        "train": {"learning_rate": BASE_RATE, "max_steps": len(lines), "seed": 0},
    }
    scored = {"metric": "exact_match", "value": 0.83, "samples": 200, "majority": 0.37, "shuffled_inputs": 0.52}
    scores = tables.get("scores") or {"split": "test", "validation_loss": 0.4137, "tasks": {task: scored}}
    modules = tables.get("modules") or [
        {"module": "vision_tower", "tensors": 210, "trainable": 0, "frozen": 3_400_000, "kind": "frozen"},
        {"module": "projector", "tensors": 4, "trainable": 913_000, "frozen": 0, "kind": "full", "learning_rate": 1e-4},
        {
            "module": "llm", "tensors": 420, "trainable": 4_884_480, "frozen": 134_515_008, "kind": "LoRA",
            "learning_rate": 1e-4,
        },
    ]  # fmt: skip
    run.recipe_file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    read = {"train": {task: {"samples": 2000, "skipped": 3, "flaws": [f"task {task}: sample 7: a.png: broken"]}}}
    run.data_file.write_text(json.dumps(tables.get("data") or read), encoding="utf-8")
    run.scores_file.write_text(json.dumps(scores), encoding="utf-8")
    (path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    timings = [{"step": line["step"], "step_seconds": 1.3, "balance_seconds": 0.3} for line in lines if "loss" in line]
    run.timings_file.write_text("".join(json.dumps(line) + "\n" for line in timings), encoding="utf-8")
    for name, answers in tables.get("predictions", {}).items():
        run.predictions.mkdir(exist_ok=True)
        text = "".join(json.dumps(answer) + "\n" for answer in answers)
        (run.predictions / f"{name}.jsonl").write_text(text, encoding="utf-8")
    run.done_file.write_text("{}", encoding="utf-8")
    return run


def answered(number: int, score: float | None = 0.0, **changed: Any) -> dict[str, Any]:
    """A line of `predictions/TASK.jsonl`, as the evaluation writes it."""
    line = {"id": f"q{number}", "prompt": f"what is {number}?", "prediction": "two", "references": [f"{number}"]}
    return {**line, "score": score, "images": [], "audios": [], **changed}
