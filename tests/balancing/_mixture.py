"""A mixture that a tiny model really learns: each task has a few questions, each with its own answer.

A subset of one sample does not teach them, all samples do; so every validation score rises from `mini` to `TASK+mini`,
and nothing about CoTBal is undefined. Two tasks share a question, so that one helps the other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

#: By task, question to answer.
TASKS = {
    "colour": {"what colour is it": "red", "is this picture red or blue": "deep blue"},
    "name": {"name the square": "deep blue", "say which": "red", "is this picture red or blue": "deep blue"},
    "chat": {"which colour": "it is red", "say": "it is deep blue"},
}
SCORED = ("colour", "name")
SAMPLES = 18


def make_task(folder: Path, name: str) -> Path:
    """One task's folder for the `jsonl` reader; questions about images, or bare ones (`chat`)."""
    (folder / "images").mkdir(parents=True)
    for split, count in (("train", SAMPLES), ("validation", 6), ("test", 6)):
        rows = []
        for number in range(count):
            question, answer = list(TASKS[name].items())[number % len(TASKS[name])]
            row = {"id": f"{name}-{split}{number}", "prompt": question, "answer": answer}
            if name in SCORED:
                row["image"] = f"images/{split}-{number}.png"
                Image.new("RGB", (16, 16), (200 - 9 * number, 30, 30 + 9 * number)).save(folder / row["image"])
            rows.append(row)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def settings(checkpoint: Path, data: Path, **cotbal: Any) -> dict[str, Any]:
    """A recipe of two tasks that can be balanced, a conversation that is not scored and a further test set."""
    tasks: list[dict[str, Any]] = [
        {
            "name": name, "reader": "jsonl", "path": str(data / name), "metric": "exact_match", "max_new_tokens": 6,
        }
        for name in SCORED
    ]  # fmt: skip
    tasks.append({"name": "chat", "reader": "jsonl", "path": str(data / "chat"), "validation": None, "test": None})
    further = {"name": "colour-again", "train": None, "validation": None, "test": "validation", "test_of": "colour"}
    tasks.append({**tasks[0], **further})
    return {
        "model": {"path": str(checkpoint), "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}},
        "tasks": tasks,
        "balance": {
            "modules": {"schedule": "constant", "measure": False},
            "cotbal": {"mini_fraction": 1 / SAMPLES, **cotbal},
        },
        "train": {
            "learning_rate": 0.03, "epochs": 5, "batch_size": 6, "warmup": 0.0, "save_steps": 5, "threads": 1,
        },
    }  # fmt: skip
