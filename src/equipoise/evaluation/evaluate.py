"""The evaluation job: a run in, `predictions/TASK.jsonl` and `scores.json` out, with the controls that scores need."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.data.tasks import read_task
from equipoise.errors import RecipeError, RunError
from equipoise.evaluation.generate import generate, with_shuffled_inputs
from equipoise.evaluation.loss import token_loss
from equipoise.metrics import exact_match
from equipoise.models import loading
from equipoise.recipe import Task
from equipoise.training.run_directory import RunDirectory, write_atomically, write_json

Split = Literal["validation", "test"]
Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]
METRICS: dict[str, Metric] = {"exact_match": exact_match.score}


def evaluate(run: RunDirectory, console: Console, split: Split = "test", controls: bool = True) -> dict[str, Any]:
    """Score a finished run by generation on each task that has a metric.

    Args:
        run: its model is loaded anew, as a user would.
        split: which part of each task to answer; the validation loss is on the validation part always.
        controls: also score the most frequent training answer, and the same model on shuffled images and
            audio.

    Returns:
        What `scores.json` holds: by task metric, value, samples, and the controls.

    Raises:
        RunError: the run has not finished. RecipeError: no task has a metric and this split.
    """
    if not run.done:
        raise RunError(f"{run.path}: training has not finished (no done.json); equipoise train RECIPE --resume ends it")
    recipe = run.recipe()
    tasks = [task for task in recipe.tasks if task.metric is not None and getattr(task, split) is not None]
    if not tasks:
        raise RecipeError(f"{run.path}: no task has both a metric and a {split} part")
    data = {task.name: read_task(task, split, recipe.train.seed) for task in tasks}
    validation = [s for task in recipe.tasks for s in read_task(task, "validation", recipe.train.seed)]
    model = loading.load_tuned(recipe.model, run.model)
    prefix_attention = loading.family(recipe.model).prefix_attention
    collator = Collator(loading.load_processor(recipe.model), prefix_attention=prefix_attention)

    scores: dict[str, Any] = {"split": split, "tasks": {}}
    shown = {name: any(sample.images or sample.audios for sample in samples) for name, samples in data.items()}
    total = len(validation) + sum(len(data[n]) * (2 if controls and shown[n] else 1) for n in data)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task(f"evaluating {run.path.name}", total=total)

        def advance(count: int) -> None:
            bar.advance(job, count)

        if validation:
            scores["validation_loss"] = token_loss(model, collator, validation, advance=advance)
        for task in tasks:
            samples = data[task.name]
            answers = generate(model, collator, samples, task.max_new_tokens, advance=advance)
            values = _score(task, answers, samples)
            _write_predictions(run, task, samples, answers, values)
            entry: dict[str, Any] = {"metric": task.metric, "value": _mean(values), "samples": len(samples)}
            if controls:
                entry["majority"] = _majority(task, samples, recipe.train.seed)
                if shown[task.name]:
                    shuffled = with_shuffled_inputs(samples)
                    answers = generate(model, collator, shuffled, task.max_new_tokens, advance=advance)
                    entry["shuffled_inputs"] = _mean(_score(task, answers, shuffled))
            scores["tasks"][task.name] = entry
    write_json(run.scores_file, scores)
    return scores


def print_scores(scores: dict[str, Any], console: Console) -> None:
    """Print one run's scores."""
    table = Table("task", "metric", scores["split"], "samples", "majority answer", "shuffled inputs")
    for name, entry in scores["tasks"].items():
        shown = (entry["value"], entry.get("majority"), entry.get("shuffled_inputs"))
        value, majority, shuffled = (f"{x:.3f}" if x is not None else "-" for x in shown)
        table.add_row(name, entry["metric"], value, str(entry["samples"]), majority, shuffled)
    console.print(table)
    if "validation_loss" in scores:
        console.print(f"validation loss {scores['validation_loss']:.4f} nats a token", highlight=False)


def _score(task: Task, answers: Sequence[str], samples: Sequence[Sample]) -> list[float]:
    assert task.metric is not None
    return METRICS[task.metric](answers, [sample.references for sample in samples])


def _majority(task: Task, samples: Sequence[Sample], seed: int) -> float | None:
    """The score of answering every question with the most frequent answer of the training part."""
    training = read_task(task, "train", seed)
    if not training:
        return None
    answer, _ = Counter(sample.turns[-1].text for sample in training).most_common(1)[0]
    return _mean(_score(task, [answer] * len(samples), samples))


def _write_predictions(
    run: RunDirectory, task: Task, samples: Sequence[Sample], answers: Sequence[str], values: Sequence[float]
) -> None:
    lines = [
        json.dumps(
            {
                "id": sample.id,
                "prompt": sample.prompt,
                "prediction": answer,
                "references": sample.references,
                "score": value,
                "images": [str(path) for path in sample.images],
                "audios": [str(path) for path in sample.audios],
            },
            ensure_ascii=False,
        )
        for sample, answer, value in zip(samples, answers, values, strict=True)
    ]
    write_atomically(run.predictions / f"{task.name}.jsonl", "\n".join(lines) + "\n")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
