"""The demo: the main job on the embedded stack, once for each method, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rich.console import Console

from equipoise.evaluation.evaluate import evaluate
from equipoise.recipe_reading import load_recipe
from equipoise.report import build_report, print_summary
from equipoise.training.run import train


def run_demo(
    out: Path, methods: Sequence[str], console: Console, steps: int | None = None, seed: int | None = None
) -> Path:
    """Tune, evaluate and report each method on the embedded model and data.

    Finished runs below `out` are kept, unfinished ones go on, so an interrupted demo can simply be started again.

    Returns:
        The report.
    """
    overrides = [f"train.max_steps={steps}"] if steps is not None else []
    overrides += [f"train.seed={seed}"] if seed is not None else []
    runs = []
    with resources.as_file(resources.files("equipoise") / "recipes" / "demo.yaml") as file:
        for number, method in enumerate(methods, start=1):
            recipe = load_recipe(file, [*overrides, f"balance.modules.schedule={method}"])
            console.rule(f"{method} ({number} of {len(methods)})")
            run = train(recipe, out / method, console, resume=(out / method / "recipe.yaml").is_file())
            if run.scores() is None:
                console.print("evaluating by generation ...")
                evaluate(run, console)
            runs.append(run)
    report = build_report(runs, out / "report.html")
    console.rule("one seed: an illustration, not evidence")
    print_summary(runs, console)
    console.print(f"report: {report}\ntuned models: {out}/METHOD/model", highlight=False)
    return report
