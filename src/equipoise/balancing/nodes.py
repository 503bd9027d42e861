"""One node of a plan as a run directory: `NAME-HASH`, where the hash covers all that decides what the run gives.

A node that has its scores is never run again; one that was stopped goes on where it was.
"""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from equipoise.balancing.stretches import WARM, run_stretches, seconds_of_reading
from equipoise.data.tasks import PARTS, Notify, is_unanswered, read_task
from equipoise.evaluation.evaluate import evaluate
from equipoise.locks import lock, turn
from equipoise.recipe import Recipe
from equipoise.tasks.itinerary import Itinerary
from equipoise.tasks.plan import Scoring, Split
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory, write_json

#: By task, by part: how many samples it has, and a digest of what they were read from.
Data = Mapping[str, Mapping[str, tuple[int, str]]]


def read_data(recipe: Recipe, notify: Notify) -> Data:
    """Read every part of every task once; the training part without its `fraction`.

    Raises:
        DataError: data that cannot be read, before anything takes long.
    """
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for task in recipe.tasks:
        found[task.name] = {}
        whole = task.model_copy(update={"fraction": None})
        for part in PARTS:
            samples = read_task(whole, part, recipe.train.seed, recipe.data.on_error == "skip", notify)
            if samples is not None:
                found[task.name][part] = (len(samples), _state(samples.store.folder))
    return found


def facts_of(recipe: Recipe, data: Data) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """What a plan must know about the data.

    Returns:
        By task, the samples of: its training part; its validation part, if it has a metric and answers; its test part,
        if it has a metric.
    """
    counts = {name: parts["train"][0] for name, parts in data.items() if "train" in parts}
    scored = [task for task in recipe.tasks if task.metric is not None]
    validated = {
        task.name: data[task.name]["validation"][0]
        for task in scored
        if "validation" in data[task.name] and not is_unanswered(task, "validation")
    }
    return counts, validated, {task.name: data[task.name]["test"][0] for task in scored if "test" in data[task.name]}


def has_loss(recipe: Recipe, data: Data) -> bool:
    """Whether there are validation samples with answers, of a task with a metric or without one."""
    return any("validation" in data[task.name] and not is_unanswered(task, "validation") for task in recipe.tasks)


def node_folder(root: Path, name: str, recipe: Recipe, data: Data, itinerary: Itinerary | None = None) -> Path:
    """Where a node's run directory is.

    Args:
        root: of all nodes.
        name: of the node.
        recipe: whole, weights included.
        data: of the recipe's tasks, and of others.
        itinerary: of the node that stands for all probes.
    """
    model = Path(recipe.model.path)
    parts = {
        task.name: {part: state for part, (_, state) in data[task.name].items() if getattr(task, part) is not None}
        for task in recipe.tasks
    }
    decisive = [recipe.decisive.to_yaml(), parts, _files(model) if model.is_dir() else None]
    if itinerary is not None:
        decisive.append(asdict(itinerary))
    return root / f"{name}-{hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]}"


def scores_of(folder: Path, split: Split) -> dict[str, float] | None:
    """A node's scores by task, those that are secret left out; None where it has not been scored on this split."""
    file = _scores_file(folder, split)
    if not file.is_file():
        return None
    tasks = json.loads(file.read_text(encoding="utf-8"))["tasks"]
    return {name: entry["value"] for name, entry in tasks.items() if entry["value"] is not None}


def estimates_of(folder: Path) -> dict[str, dict[str, float]] | None:
    """By probe, by task, the scores that a budget's node estimates; None where it has not been made."""
    file = _scores_file(folder, "budget")
    return json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else None


def run_node(
    name: str,
    recipe: Recipe,
    folder: Path,
    splits: Sequence[Scoring],
    console: Console,
    patience: float,
    validation_loss: bool = False,
    itinerary: Itinerary | None = None,
) -> None:
    """Train and score what has not been trained and scored.

    Args:
        name: shown beside the progress.
        recipe: whole, weights included.
        folder: the run directory.
        splits: to be scored on; of `loss`, nothing but the validation loss is computed.
        console: for progress.
        patience: seconds after which another process that has this node and shows no life counts as stopped.
        validation_loss: also compute it with the scores.
        itinerary: of the node that stands for all probes; such a one is scored on its way.

    Raises:
        Held: such a process has it.
        EquipoiseError: as `train` and `evaluate`.
    """
    run = RunDirectory(folder)

    def notify(line: str) -> None:
        console.print(f"{name}: {line}", highlight=False)

    with turn(folder.parent.parent, folder.name, patience, notify):
        if is_done(folder, splits):
            return
        if itinerary is not None:
            estimates = run_stretches(recipe, itinerary, folder, console, name)
            with lock(folder):
                run.sweep()
            write_json(_seconds_file(folder, "budget"), seconds_of_reading(folder))
            write_json(_scores_file(folder, "budget"), estimates)
            _free_memory()
            tidy(folder)
            return
        assert "budget" not in splits, "such a node has an itinerary"
        train(recipe, folder, console, resume=True, name=name)
        with lock(folder):  # `train` sweeps no run that is finished: somebody may evaluate it
            run.sweep()
        _free_memory()
        for split in splits:
            if not _scores_file(folder, split).is_file():
                began = time.monotonic()
                found = run.scores()
                part: Split | None = split if split in ("validation", "test") else None
                if found is None or found["split"] != part:  # else killed just before it was kept
                    wanted = validation_loss or part is None
                    found = evaluate(run, console, part, controls=False, validation_loss=wanted)
                    write_json(_seconds_file(folder, split), time.monotonic() - began)
                # scores.json is replaced when another split is scored.
                write_json(_scores_file(folder, split), found)
        _free_memory()
        tidy(folder)


def is_done(folder: Path, splits: Sequence[Scoring]) -> bool:
    """Whether a node has been trained and scored."""
    return RunDirectory(folder).done and all(_scores_file(folder, split).is_file() for split in splits)


def tidy(folder: Path) -> None:
    """Delete a finished node's checkpoints, for nothing is left to resume; where no model comes of it, that too."""
    run = RunDirectory(folder)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if _scores_file(folder, "budget").is_file():
        (folder / WARM).unlink(missing_ok=True)
        shutil.rmtree(run.model, ignore_errors=True)


def cost_of(folder: Path, splits: Sequence[Scoring]) -> dict[str, float | None]:
    """What a node took, in seconds of wall-clock time.

    Returns:
        `training`: of all optimizer steps that count; loading the model is not in it. `scoring`: of all splits, since
        they were last begun; None where that is not known.
    """
    steps = [line["step_seconds"] for line in RunDirectory(folder).timings() if "step_seconds" in line]
    files = [_seconds_file(folder, split) for split in splits]
    known = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    return {"training": sum(steps) if steps else None, "scoring": sum(known) if len(known) == len(splits) else None}


def _free_memory() -> None:
    """Let go of the model that is no longer used: a Trainer refers to itself, and the next model needs the room."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _scores_file(folder: Path, split: Scoring) -> Path:
    return folder / f"scores-{split}.json"


def _seconds_file(folder: Path, split: Scoring) -> Path:
    return folder / f"seconds-{split}.json"


def _state(store: Path) -> str:
    """A digest of what an indexed split was read from: its files' sizes and times, those left out among them."""
    files = json.loads((store / "sources.json").read_text(encoding="utf-8"))["files"]
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> list[list[str | int]]:
    """What changes when a file of a folder does."""
    states = [(file, file.stat()) for file in sorted(folder.rglob("*")) if file.is_file()]
    return [[str(file.relative_to(folder)), stat.st_size, stat.st_mtime_ns] for file, stat in states]
