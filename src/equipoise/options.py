"""What several commands share: their arguments and options, and the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equipoise.console import PlainConsole
from equipoise.errors import RecipeError, RunError
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.texts import printable

if TYPE_CHECKING:
    from equipoise.balancing.places import Where

console = PlainConsole()
LONGEST = 4_000  # letters of a line that says what is wrong

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML).")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings over the recipe's.")]
Seed = Annotated[int | None, typer.Option(help="Over the recipe's train.seed.")]
Out = Annotated[Path | None, typer.Option(help="The run directory; by default runs/ and the recipe's name.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")]
Slots = Annotated[
    int | None, typer.Option(min=1, help="Runs at once on this machine; by default one for each CUDA device.")
]
OnRay = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster: auto, or HOST:PORT of its head.")
]
Cpus = Annotated[float, typer.Option(min=0.1, help="With --ray: CPUs of each run.")]
Gpus = Annotated[
    float | None, typer.Option(min=0, help="With --ray: GPUs of each run; by default 1 where the cluster has any.")
]


def recipe_of(path: Path, overrides: list[str] | None, seed: int | None) -> Recipe:
    """A recipe with what the command line puts over it."""
    return load_recipe(path, [*(overrides or []), *([f"train.seed={seed}"] if seed is not None else [])])


def require_one(command: str) -> None:
    """Refuse the processes of a launcher to a command that starts its own, where it wants any.

    Raises:
        RunError: there are several.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise RunError(
            f"found {processes} processes; equipoise {command} takes no launcher (torchrun ...): start it by itself"
        )


def place_of(slots: int | None, ray: str | None, cpus: float, gpus: float | None) -> Where:
    """Where nodes are to run.

    Raises:
        RecipeError: this machine and a cluster at once.
    """
    if ray is not None and slots is not None:
        raise RecipeError("--slots is for this machine and --ray for a cluster; give one of them")
    from equipoise.balancing.places import Where

    return Where(slots, ray, cpus, gpus)


def notice(line: str) -> None:
    """Print what a command wants to say while it works."""
    console.print(line, highlight=False)


def complain(line: str) -> None:
    """Print what is wrong, to standard error: one line, whatever is in the names that it shows."""
    line = printable(line)  # names come from files
    print(f"equipoise: {line if len(line) <= LONGEST else f'{line[:LONGEST]}...'}", file=sys.stderr)
