"""The commands that look at runs while they go on: `equipoise diagnose` and `equipoise watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equipoise.console import PlainConsole
from equipoise.errors import RecipeError
from equipoise.options import Out, Overrides, Resume, Seed, console, recipe_of
from equipoise.stopping import stoppable


def diagnose(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|RUN|BALANCE",
            help="A recipe file, to be measured now; or a folder: a run, also one that goes on or has no recipe "
            "(attach()), or a balance.",
        ),
    ],
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    seed: Seed = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="A line whenever the diagnosis of a run changes, until the run is done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON; with --follow, a line a change.")] = False,
) -> None:
    """Name a run's dilemma, oscillating, biased or balanced, and the tasks that starve; say what to do, with numbers.

    A recipe is trained without acting on what is measured; a folder is only read.
    """
    if follow or recipe.is_dir():
        options = {"--out": out, "--resume": resume or None, "--seed": seed, "KEY=VALUE": overrides or None}
        for option, given in options.items():
            if given is not None:
                raise RecipeError(f"diagnose: {option} is for a recipe, which is trained; {recipe} is read as a run")
        if recipe.is_file():
            raise RecipeError(f"diagnose: --follow is for the folder of a run; {recipe} is a file")
        from equipoise.watching.terminal import print_diagnosis

        print_diagnosis(recipe, console, follow, as_json)
        return
    forced = ["balance.modules.schedule=constant", "balance.modules.measure=true"]
    settings = recipe_of(recipe, [*(overrides or []), *forced], seed)
    from equipoise.training.run import train as train_run
    from equipoise.watching.terminal import print_measured

    beside = PlainConsole(stderr=True) if as_json else console
    with stoppable():
        run = train_run(settings, out or Path("runs") / f"{recipe.stem}-diagnose", beside, resume=resume)
    print_measured(run.path, recipe, overrides or [], console, as_json)


def watch(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...|FOLDER",
            help="Run directories, or one folder of `balance` or `compare`, which need not exist yet.",
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="The address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open", help="Also open the page in a browser.")] = False,
) -> None:
    """Serve the report of runs that go on, on a page that updates itself. Ctrl-C ends it."""
    from equipoise.watching.serve import serve

    serve(folders, host, port, console, open_)
