"""The bench command: measures what it is asked to, prints tables, and keeps `bench.json`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from equipoise.bench.contestants import line_up
from equipoise.bench.curves import against_the_first, loss_curves
from equipoise.bench.fidelity import Agreement, watch
from equipoise.bench.growth import growth
from equipoise.bench.memory import STEPS, memory_ratios, peak_of
from equipoise.bench.steps import step_costs, time_steps
from equipoise.bench.tables import print_curves, print_fidelity, print_growth, print_memory, print_steps
from equipoise.console import plain
from equipoise.errors import RunError
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.training.run import environment
from equipoise.training.run_directory import write_json

PARTS = ("steps", "curves", "memory", "fidelity", "growth")
STACKS = {"vision": "bench-vision.yaml", "audio": "bench-audio.yaml"}
#: Rounds or steps of each part where the command says nothing.
LENGTHS = {"steps": 30, "curves": 50, "memory": STEPS, "fidelity": 200, "growth": 10}
SYNTHETIC = "random weights"
SECONDS_BETWEEN_LINES = 20.0
Notify = Callable[[str], None]


def embedded(name: str) -> Recipe:
    """The recipe of an embedded stack."""
    with resources.as_file(resources.files("equipoise") / "recipes" / STACKS[name]) as file:
        return load_recipe(file)


def bench(
    what: Sequence[str],
    recipes: Mapping[str, Recipe],
    out: Path,
    console: Console,
    steps: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> Path:
    """Measure each part for each recipe, and growth once.

    Args:
        what: some of `PARTS`.
        recipes: by the name that stands in the file.
        out: the folder of `bench.json`, which keeps the parts that are not measured now.
        console: for progress and tables.
        steps: counted rounds, or steps (fidelity), of each part; `LENGTHS` when None. Memory always takes its own few.
        seeds: of the runs of `fidelity`.

    Returns:
        The file. It is written anew, atomically, after each part.

    Raises:
        RunError: the folder holds another `bench.json`, or there are several processes.
        RecipeError, DataError, PartitionError: a recipe cannot be run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("equipoise bench runs in one process")
    file = out / "bench.json"
    found = _earlier(file)

    def keep(subject: str, part: str, length: int, result: Mapping[str, Any]) -> None:
        entry = {"command": {"steps": length}, "environment": _environment(), **result}
        found.setdefault(subject, {})[part] = entry
        write_json(file, found)

    if "trl SFTTrainer" not in [contestant.name for contestant in line_up()]:
        console.print("trl is not installed; its SFTTrainer is left out")
    for subject, recipe in recipes.items():
        for part in [part for part in PARTS if part in what and part != "growth"]:
            length = steps if steps is not None and part != "memory" else LENGTHS[part]
            console.rule(f"{subject}: {part}")
            result: dict[str, Any] = {}
            with _progress(console) as notify:
                for result in _measure(part, recipe, length, seeds, notify):
                    keep(subject, part, length, result)
            _print(part, result, console)
    if "growth" in what:
        length = steps or LENGTHS["growth"]
        console.rule(f"{SYNTHETIC}: growth")
        with _progress(console) as notify:
            result = {"axes": growth(length, notify)}
        keep(SYNTHETIC, "growth", length, result)
        print_growth(result["axes"], console)
    return file


def _measure(part: str, recipe: Recipe, length: int, seeds: Sequence[int], notify: Notify) -> Iterator[dict[str, Any]]:
    """One part's result; what takes hours gives one after each seed, of all seeds until then."""
    named = {"recipe": recipe.to_yaml()}
    if part == "steps":
        costs = step_costs(time_steps(recipe, line_up(), length, notify))
        yield {**named, "costs": {name: cost.as_dict() for name, cost in costs.items()}}
    elif part == "curves":
        plain = [contestant for contestant in line_up() if not contestant.balances]
        yield {**named, "curves": against_the_first(loss_curves(recipe, plain, length, notify))}
    elif part == "memory":
        peaks = {}
        for contestant in line_up():
            notify(f"memory: {contestant.name}")
            peaks[contestant.name] = peak_of(recipe, contestant, length)
        yield {**named, "peaks": memory_ratios(peaks)}
    else:
        pooled: dict[str, Agreement] = {}
        by_seed: dict[str, dict[str, Any]] = {}
        for seed in seeds:
            for name, agreement in watch(recipe, length, seed, notify).items():
                by_seed.setdefault(name, {})[str(seed)] = agreement.as_dict()
                pooled.setdefault(name, Agreement()).add(agreement)
            figures = {name: agreement.figures() for name, agreement in pooled.items()}
            yield {**named, "pooled": figures, "seeds": by_seed}


def _print(part: str, result: Mapping[str, Any], console: Console) -> None:
    if part == "steps":
        print_steps(result["costs"], console)
    elif part == "curves":
        print_curves(result["curves"], console)
    elif part == "memory":
        print_memory(result["peaks"], console)
    else:
        print_fidelity(result["pooled"], result["seeds"], console)


def _environment() -> dict[str, str | int]:
    return {**environment(), "threads": torch.get_num_threads(), "cores": os.cpu_count() or 0}


def _earlier(file: Path) -> dict[str, Any]:
    """What an earlier command has measured."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: cannot be read ({error}); remove it, or name another folder with --out") from None
    if not isinstance(content, dict) or not all(isinstance(parts, dict) for parts in content.values()):
        raise RunError(f"{file} was not written by equipoise bench; name another folder with --out")
    return content


@contextmanager
def _progress(console: Console) -> Iterator[Notify]:
    """A line that says where the measurement is: live on a terminal, now and then elsewhere."""
    if console.is_terminal:
        with console.status("loading") as status:
            yield lambda line: status.update(plain(line))
        return
    shown = 0.0

    def notify(line: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            console.print(line, highlight=False)

    yield notify
