"""`equipoise compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equipoise.options import Cpus, Gpus, OnRay, Overrides, RecipeFile, Slots, console, place_of, recipe_of, require_one


def compare(
    recipe: RecipeFile,
    overrides: Overrides = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="By commas: schedules, task weighters (ew, tla, rlw, dwa, igbv1), one of each as commit+dwa, or "
            "stl (one model a task); by default constant,commit-clr,commit, or none where --method names some."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: KEY=VALUE ...'", help="A method of your own, over the recipe; may be repeated."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Of train.seed, by commas.")] = "0,1,2",
    baseline: Annotated[
        str | None, typer.Option(help="The method that others are compared with; by default the first.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="By default runs/, the recipe's name and -compare.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs; train nothing.")] = False,
    slots: Slots = None,
    ray: OnRay = None,
    cpus: Cpus = 1,
    gpus: Gpus = None,
) -> None:
    """Train several methods with several seeds and compare them. The same command goes on with what was stopped."""
    require_one("compare")
    from equipoise.comparing.methods import baseline_of, parse_methods, parse_seeds

    named, numbers = parse_methods(methods, method or []), parse_seeds(seeds)
    first = baseline_of(list(named), baseline)
    recipes = {name: recipe_of(recipe, [*(overrides or []), *settings], None) for name, settings in named.items()}
    place = place_of(slots, ray, cpus, gpus)
    from equipoise.comparing.run import compare as compare_methods

    folder = out or Path("runs") / f"{recipe.stem}-compare"
    made = compare_methods(recipes, numbers, folder, console, first, dry_run, place)
    if made.summary is not None:
        console.print(f"numbers: {made.file}, and as tables: .md, .csv, .tex", highlight=False)
        console.print(f"report: {made.report}", highlight=False)
