"""The commands. Each parses, calls one function and prints; what they do lives elsewhere.

Imports that take seconds stand inside the commands, so that --help and a mistake in a recipe answer at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from equipoise.cli_compare import compare
from equipoise.cli_data import convert, data
from equipoise.cli_watch import diagnose, watch
from equipoise.disk import trouble
from equipoise.errors import DataError, Elsewhere, EquipoiseError, RecipeError
from equipoise.options import (
    Cpus,
    Gpus,
    OnRay,
    Out,
    Overrides,
    RecipeFile,
    Resume,
    Seed,
    Slots,
    complain,
    console,
    place_of,
    recipe_of,
    require_one,
)  # fmt: skip
from equipoise.quiet import quieten
from equipoise.recipe import SCHEDULES
from equipoise.recipe_reading import load_recipe
from equipoise.stopping import Stopped, go_on, stoppable

app = typer.Typer(
    help="Balance multimodal instruction tuning: measure and correct how fast the modules of a model learn.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(data, name="data")
app.add_typer(convert, name="convert")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
BENCHED = ("steps", "curves", "memory", "fidelity", "growth")


@app.command()
@stoppable()
def demo(
    out: Annotated[Path, typer.Option(help="Where the runs and the report go.")] = Path("runs/demo"),
    methods: Annotated[str, typer.Option(help="Schedules to compare, by commas.")] = "constant,commit-clr,commit",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps a method; the demo recipe's by default.")
    ] = None,
    seed: Seed = None,
) -> None:
    """Tune, evaluate and report on the embedded model and data: no GPU, no model hub."""
    require_one("demo")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    names = methods.split(",")
    for name in names:
        if name not in SCHEDULES:
            raise RecipeError(f"--methods: found {name!r}; allowed: {', '.join(SCHEDULES)}")
    from equipoise.demo import run_demo

    run_demo(out, names, console, steps=steps, seed=seed)


@app.command()
@stoppable()
def train(
    recipe: RecipeFile, overrides: Overrides = None, out: Out = None, resume: Resume = False, seed: Seed = None
) -> None:
    """Tune one model by a recipe."""
    settings = recipe_of(recipe, overrides, seed)
    from equipoise.training.run import train as train_run

    run = train_run(settings, out or Path("runs") / recipe.stem, console, resume=resume)
    console.print(f"tuned model: {run.model}\nlog: {run.metrics_file}", highlight=False)


@app.command()
@stoppable()
def evaluate(
    run: RunFolder,
    split: Annotated[Literal["validation", "test"], typer.Option(help="Which part to answer.")] = "test",
    controls: Annotated[bool, typer.Option(help="Also score the majority answer and shuffled inputs.")] = True,
    engine: Annotated[Literal["transformers", "vllm"], typer.Option(help="What generates.")] = "transformers",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples that are answered together.")] = 16,
) -> None:
    """Generate and score on the recipe's validation or test sets; goes on where it was stopped."""
    from equipoise.training.run_directory import RunDirectory

    opened = RunDirectory.open(run)
    from equipoise.evaluation.evaluate import evaluate as evaluate_run
    from equipoise.evaluation.evaluate import print_scores

    scores = evaluate_run(opened, console, split, controls, engine, batch_size)
    print_scores(scores, console)
    console.print(f"scores: {opened.scores_file}\npredictions: {opened.predictions}", highlight=False)


@app.command()
@stoppable()
def balance(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="By default runs/, the recipe's name and -balance.")] = None,
    seed: Seed = None,
    compare: Annotated[
        str | None, typer.Option(help="Methods to train as well, by commas: stl, ew, tla, rlw, dwa, igbv1.")
    ] = None,
    ablations: Annotated[bool, typer.Option("--ablations", help="Also train with the weights of Table 3.")] = False,
    on_degenerate: Annotated[
        Literal["error", "zero"] | None, typer.Option(help="Over the recipe's balance.cotbal.on_degenerate.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Find the weights for this share of the final run instead of by the full probe runs; over the "
            "recipe's balance.cotbal.budget."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and their cost; train nothing.")] = False,
    slots: Slots = None,
    ray: OnRay = None,
    cpus: Cpus = 1,
    gpus: Gpus = None,
) -> None:
    """Find the tasks' weights by CoTBal and train with them. The same command goes on with what was stopped."""
    require_one("balance")
    options = {"on_degenerate": on_degenerate, "budget": budget}
    forced = [f"balance.cotbal.{name}={value}" for name, value in options.items() if value is not None]
    settings = recipe_of(recipe, [*(overrides or []), *forced], seed)
    place = place_of(slots, ray, cpus, gpus)
    from equipoise.balancing.run import balance as balance_recipe

    folder = out or Path("runs") / f"{recipe.stem}-balance"
    names = compare.split(",") if compare is not None else []
    made = balance_recipe(settings, folder, console, names, ablations, dry_run, place)
    if made.final is not None:
        from equipoise.report import build_balance_report

        console.print(f"weights: {made.balance_file}\nscores: {made.results_file}", highlight=False)
        console.print(f"tuned model: {made.final.model}\nreport: {build_balance_report(folder)}", highlight=False)


app.command()(compare)


app.command()(diagnose)
app.command()(watch)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...|FOLDER", help="Run directories, or one folder of `balance --out` or `compare --out`."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The HTML file; by default report.html in the first folder.")] = None,
    no_media: Annotated[
        bool, typer.Option("--no-media", help="Leave out the pictures and clips of the predictions.")
    ] = False,
) -> None:
    """Draw one self-contained HTML file of runs, side by side, or of what `balance` or `compare` found."""
    from equipoise.report import report_on

    console.print(f"report: {report_on(folders, out, not no_media)}", highlight=False)


@app.command()
def weights(
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES.csv",
            help="Validation scores, higher being better: a column a task, and before them one that names the runs "
            "(its header is free); a row `mini` and a row `TASK+mini` for each task.",
        ),
    ],
    temperature: Annotated[float, typer.Option(help="The larger, the nearer all weights are to 1.")] = 0.5,
    alpha: Annotated[float, typer.Option(help="Share of contribution against difficulty, 0 to 1.")] = 0.5,
    on_degenerate: Annotated[
        Literal["error", "zero"], typer.Option(help="What an undefined contribution or difficulty does.")
    ] = "error",
) -> None:
    """CoTBal's contributions, difficulties and weights from a table of validation scores, as JSON. No training."""
    from equipoise.tables import read_validation_scores
    from equipoise.tasks.contribution import balance_tasks

    balance = balance_tasks(read_validation_scores(scores), temperature, alpha, on_degenerate)
    _print_json(balance.as_dict())
    for task in balance.undefined_contributions:
        complain(f"contributions to {task} are undefined and set to 0")
    for task in balance.undefined_difficulties:
        complain(f"difficulty of {task} is undefined and set to 0")
    if balance.caution is not None:
        complain(balance.caution)


@app.command()
def deltas(
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES.csv",
            help="Test scores: columns method, task, metric, value, higher_is_better (true, false).",
        ),
    ],
    baseline: Annotated[str, typer.Option(help="The method that the others are compared with.")] = "stl",
) -> None:
    """Delta I and Delta E of every method against the baseline, in percent, as JSON."""
    from equipoise.metrics.deltas import deltas as compare
    from equipoise.tables import read_test_scores

    compared = compare(read_test_scores(scores), baseline)
    _print_json(
        {
            method: {"delta_i": found.delta_i, "delta_e": found.delta_e, "tasks": dict(found.improvements)}
            for method, found in compared.items()
        }
    )


@app.command()
def bench(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...", help="steps, curves, memory, fidelity, growth; by default steps and memory."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Counted rounds; by default 30, of growth 10. Steps of fidelity; by default 200."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs fidelity is measured on: seeds 0, 1, ...")] = 3,
    stack: Annotated[Literal["vision", "audio", "both"], typer.Option(help="Which embedded models.")] = "both",
    model: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="A recipe to train instead of the embedded ones'.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of bench.json; parts measured earlier stay.")] = Path(
        "runs/bench"
    ),
) -> None:
    """What balance costs and how far its estimates can be trusted; every figure is a ratio."""
    for part in what or []:
        if part not in BENCHED:
            raise RecipeError(f"bench: found {part!r}; allowed: {', '.join(BENCHED)}")
    recipe = load_recipe(model) if model is not None else None
    from equipoise.bench import run as benchmark

    if model is not None and recipe is not None:
        recipes = {model.stem: recipe}
    else:
        recipes = {name: benchmark.embedded(name) for name in benchmark.STACKS if stack in (name, "both")}
    file = benchmark.bench(what or ["steps", "memory"], recipes, out, console, steps, range(seeds))
    console.print(f"bench: {file}", highlight=False)


def _print_json(result: dict[str, Any]) -> None:
    try:
        text = json.dumps(result, indent=2, allow_nan=False)
    except ValueError:
        raise DataError("the scores lie so far apart that a result of theirs is not finite") from None
    print(text)


def main() -> None:
    """Entry point: a user's mistake is one line and status 2."""
    quieten()
    console.quiet = os.environ.get("RANK", "0") != "0"  # of several processes the first one speaks
    try:
        app()
    except EquipoiseError as error:
        _end_together(error)
        sys.exit(2)
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            complain(f"{stopped}; it goes on with: {go_on(sys.argv[1:])}")
        sys.exit(0)
    except KeyboardInterrupt:
        print(
            "equipoise: interrupted; train --resume goes on from the newest checkpoint, other commands by themselves",
            file=sys.stderr,
        )
        sys.exit(130)
    except Exception as error:
        line = trouble(error)
        if line is None:
            raise
        complain(line)
        sys.exit(2)
    finally:
        _leave_group()


def _end_together(error: EquipoiseError) -> None:
    """Say an error once, before any of a launcher's processes ends: the launcher then ends all others."""
    distributed = _group()
    if distributed is None and os.environ.get("RANK", "0") != "0":
        time.sleep(60)  # no process has met another yet: the first one finds the same
    if not isinstance(error, Elsewhere):
        complain(str(error))
    if distributed is not None and error.agreed:
        with suppress(RuntimeError):
            distributed.barrier()


def _leave_group() -> None:
    if _group() is not None:
        from equipoise.training import processes

        processes.leave()


def _group() -> Any:
    """torch.distributed where this process is in a group, else None."""
    distributed: Any = sys.modules.get("torch.distributed")  # imported only where a command needed it
    met = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if met else None


if __name__ == "__main__":
    main()
