"""The commands. Each parses, calls one function and prints; what they do lives elsewhere.

Imports that take seconds stand inside the commands, so that --help and a mistake in a recipe answer at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from equipoise.errors import EquipoiseError, RecipeError
from equipoise.recipe import SCHEDULES, Recipe, load_recipe

app = typer.Typer(
    help="Balance multimodal instruction tuning: measure and correct how fast the modules of a model learn.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(markup=False)  # names come from files; none of them is a style
data = typer.Typer(help="Data that recipes read.", no_args_is_help=True)
convert = typer.Typer(help="Turn released checkpoints into folders that recipes load.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(convert, name="convert")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML).")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings over the recipe's.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Seed = Annotated[int | None, typer.Option(help="Over the recipe's train.seed.")]
Out = Annotated[Path | None, typer.Option(help="The run directory; by default runs/ and the recipe's name.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the runs and the report go.")] = Path("runs/demo"),
    methods: Annotated[str, typer.Option(help="Schedules to compare, by commas.")] = "constant,commit-clr,commit",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps a method; the demo recipe's by default.")
    ] = None,
    seed: Seed = None,
) -> None:
    """Tune, evaluate and report on the embedded model and data: no GPU, no model hub."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    names = methods.split(",")
    for name in names:
        if name not in SCHEDULES:
            raise RecipeError(f"--methods: found {name!r}; allowed: {', '.join(SCHEDULES)}")
    from equipoise.demo import run_demo

    run_demo(out, names, console, steps=steps, seed=seed)


@app.command()
def train(
    recipe: RecipeFile, overrides: Overrides = None, out: Out = None, resume: Resume = False, seed: Seed = None
) -> None:
    """Tune one model by a recipe."""
    settings = _recipe(recipe, overrides, seed)
    from equipoise.training.run import train as train_run

    run = train_run(settings, out or Path("runs") / recipe.stem, console, resume=resume)
    console.print(f"tuned model: {run.model}\nlog: {run.metrics_file}", highlight=False)


@app.command()
def evaluate(
    run: RunFolder,
    split: Annotated[Literal["validation", "test"], typer.Option(help="Which part to answer.")] = "test",
    controls: Annotated[bool, typer.Option(help="Also score the majority answer and shuffled inputs.")] = True,
) -> None:
    """Generate and score on the recipe's validation or test sets."""
    from equipoise.training.run_directory import RunDirectory

    opened = RunDirectory.open(run)
    from equipoise.evaluation.evaluate import evaluate as evaluate_run
    from equipoise.evaluation.evaluate import print_scores

    print_scores(evaluate_run(opened, console, split, controls), console)
    console.print(f"scores: {opened.scores_file}\npredictions: {opened.predictions}", highlight=False)


@app.command()
def diagnose(
    recipe: RecipeFile, overrides: Overrides = None, out: Out = None, resume: Resume = False, seed: Seed = None
) -> None:
    """Measure a recipe's balance without acting on it, and name the dilemma: oscillating, biased or balanced."""
    forced = ["balance.modules.schedule=constant", "balance.modules.measure=true"]
    settings = _recipe(recipe, [*(overrides or []), *forced], seed)
    from equipoise.report import diagnose as name_dilemma
    from equipoise.training.run import train as train_run

    run = train_run(settings, out or Path("runs") / f"{recipe.stem}-diagnose", console, resume=resume)
    verdict = name_dilemma(run.metrics())
    console.print(f"{verdict.name}: {verdict.advice}", highlight=False)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or several run directories.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; by default report.html in the first run.")] = None,
) -> None:
    """Draw one self-contained HTML file; several runs are drawn side by side."""
    from equipoise.training.run_directory import RunDirectory

    opened = [RunDirectory.open(run) for run in runs]
    from equipoise.report import build_report

    console.print(f"report: {build_report(opened, out or opened[0].report_file)}", highlight=False)


@data.command("fetch")
def data_fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; without any, a list.")] = None,
) -> None:
    """Fetch data that Debian packages carry into the cache folder, each under its own licence."""
    from equipoise.packages import DATA, fetch_data

    if not names:
        table = Table("name", "contents", "licence", "MB", "fetched")
        for entry in DATA.values():
            size = sum(package.megabytes for package in entry.packages)
            table.add_row(entry.name, entry.contents, entry.licence, str(size), "yes" if entry.folder.is_dir() else "")
        console.print(table)
    for folder in fetch_data(names or [], notify=_notice):
        console.print(f"data: {folder}", highlight=False)


Source = Annotated[Path, typer.Argument(help="The released checkpoint's folder.")]
Target = Annotated[Path, typer.Argument(help="The folder to make.")]


@convert.command("internvl2")
def convert_internvl2(source: Source, target: Target) -> None:
    """InternVL2 with its InternLM2 keys, as released, to transformers' own classes."""
    from equipoise.models.internvl2 import convert_internvl2 as run

    console.print(f"model: {run(source, target, _notice)}", highlight=False)


@convert.command("salmonn")
def convert_salmonn(
    checkpoint: Annotated[Path, typer.Argument(help="The released .pth: Q-Former, projection and LoRA.")],
    target: Target,
    llm: Annotated[str, typer.Option(help="Vicuna: a folder or hub id.")],
    whisper: Annotated[str, typer.Option(help="Whisper: a folder or hub id.")],
    beats: Annotated[Path | None, typer.Option(help="BEATs' .pt; left out, the model has no BEATs branch.")] = None,
    merge_lora: Annotated[
        bool, typer.Option(help="Add LoRA's updates to the LLM; otherwise it is an adapter in TARGET/adapter.")
    ] = True,
) -> None:
    """SALMONN as released, in its parts, to one folder."""
    from equipoise.models.salmonn.convert import convert_salmonn as run

    run(checkpoint, beats, whisper, llm, target, merge_lora=merge_lora)
    console.print(f"model: {target}", highlight=False)


def _notice(line: str) -> None:
    console.print(line, highlight=False)


def _recipe(path: Path, overrides: list[str] | None, seed: int | None) -> Recipe:
    return load_recipe(path, [*(overrides or []), *([f"train.seed={seed}"] if seed is not None else [])])


def _quieten() -> None:
    """Let our own progress speak: the libraries' bars and notices would bury it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # their bars would fill a log file
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")


def main() -> None:
    """Entry point: a user's mistake is one line and status 2."""
    _quieten()
    try:
        app()
    except EquipoiseError as error:
        print(f"equipoise: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("equipoise: interrupted; --resume goes on from the newest checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
