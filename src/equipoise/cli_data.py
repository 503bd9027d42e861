"""The commands that show and fetch data (`equipoise data`) and turn released checkpoints into folders (`convert`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from equipoise.console import plain
from equipoise.options import Overrides, RecipeFile, Seed, complain, console, notice, recipe_of


class _ShowByDefault(TyperGroup):
    """`data RECIPE` is short for `data show RECIPE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


data = typer.Typer(
    help="Show a recipe's data as the model sees it (`data RECIPE`), or fetch data.",
    no_args_is_help=True,
    cls=_ShowByDefault,
)
convert = typer.Typer(help="Turn released checkpoints into folders that recipes load.", no_args_is_help=True)


@data.command("show")
def data_show(recipe: RecipeFile, overrides: Overrides = None, seed: Seed = None) -> None:
    """Read every task; print counts, token lengths, what cannot be read, and a sample of each."""
    settings = recipe_of(recipe, overrides, seed)
    from equipoise.data.inspect import inspect_data, print_data
    from equipoise.models import loading

    with console.status("reading") as status:
        collator = loading.load_collator(settings, loading.load_processor(settings.model), bounded=False)
        reports = inspect_data(settings, collator, lambda line: status.update(plain(line)))
    print_data(reports, settings, console)
    broken = [line for report in reports for line in report.broken]
    for line in broken:
        complain(line)
    if broken:
        raise typer.Exit(2)
    if any(report.stops(settings) for report in reports):
        raise typer.Exit(1)


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
    for folder in fetch_data(names or [], notify=notice):
        console.print(f"data: {folder}", highlight=False)


Source = Annotated[Path, typer.Argument(help="The released checkpoint's folder.")]
Target = Annotated[Path, typer.Argument(help="The folder to make.")]


@convert.command("internvl2")
def convert_internvl2(source: Source, target: Target) -> None:
    """InternVL2 with its InternLM2 keys, as released, to transformers' own classes."""
    from equipoise.models.internvl2 import convert_internvl2 as run

    console.print(f"model: {run(source, target, notice)}", highlight=False)


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
