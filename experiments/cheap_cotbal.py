"""How near CoTBal's weights for a quarter of a final run come to those of the full probes (docs/cotbal.md).

    python experiments/cheap_cotbal.py run OUT --seeds 0 1 2 3 4        # the budget's run for each seed
    python experiments/cheap_cotbal.py summary OUT FULL                 # against FULL/SEED, made by `equipoise balance`
    python experiments/cheap_cotbal.py figure OUT FULL docs             # the weights side by side (needs Chromium)

`run` makes of each seed what `equipoise balance RECIPE --budget` makes before the final run, and no final run. What is
in OUT already is left as it is, so the same command goes on where it was stopped. FULL/SEED are the folders of the full
probes: `equipoise balance recipes/embedded-mixture.yaml train.seed=SEED --out FULL/SEED`.

Agreement is Spearman's rank correlation of the tasks' final weights, and the root mean square of their differences.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.balancing.nodes import cost_of, estimates_of, facts_of, node_folder, read_data, run_node
from equipoise.balancing.stretches import probabilities, products_of
from equipoise.console import PlainConsole
from equipoise.locks import PATIENCE
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.tasks.contribution import balance_tasks
from equipoise.tasks.itinerary import Itinerary
from equipoise.tasks.learning_curve import full_scores
from equipoise.tasks.plan import BUDGET, make_plan
from equipoise.training.run_directory import write_json

RECIPE = Path(__file__).parents[1] / "recipes" / "embedded-mixture.yaml"
SEEDS = (0, 1, 2, 3, 4)
VECTORS = ("cotbal", "contribution", "difficulty")
Weights = dict[str, dict[str, float]]
"""By vector, by task."""
# ---------------------------------------------------------------------- runs


def run(recipe: Recipe, out: Path, seeds: Sequence[int], budgets: Sequence[float]) -> None:
    """Make the runs that are not there yet, one after the other."""
    console = PlainConsole()
    for budget, seed in ((budget, seed) for seed in seeds for budget in budgets):
        cotbal = recipe.balance.cotbal.model_copy(update={"budget": budget, "on_degenerate": "zero"})
        changed = recipe.model_copy(
            update={
                "balance": recipe.balance.model_copy(update={"cotbal": cotbal}),
                "train": recipe.train.model_copy(update={"seed": seed}),
            }
        )
        data = read_data(changed, console.print)
        [node] = [node for node in make_plan(changed, *facts_of(changed, data)).nodes if node.name == BUDGET]
        folder = node_folder(out / "nodes", node.name, node.recipe, data, node.itinerary)
        run_node(
            f"budget {budget:g}, seed {seed}", node.recipe, folder, node.scored_on, console, PATIENCE,
            itinerary=node.itinerary,
        )  # fmt: skip
        content = {"seed": seed, "budget": budget, "node": folder.name, "seconds": cost_of(folder, node.scored_on)}
        write_json(out / f"budget-{budget:g}-{seed}.json", {**content, "runs": estimates_of(folder)})


# ---------------------------------------------------------------------- what they found


def weights_of(scores: Mapping[str, Mapping[str, float]], recipe: Recipe) -> Weights:
    """All vectors of weights from a table of scores; undefined quantities are 0."""
    settings = recipe.balance.cotbal
    found = balance_tasks(scores, settings.temperature, settings.alpha, "zero")
    return {name: dict(zip(found.tasks, vector.tolist(), strict=True)) for name, vector in found.weights.items()}


def full_weights(full: Path, recipe: Recipe) -> dict[int, Weights]:
    """By seed, those of the full probes, as far as they are there."""
    files = sorted(full.glob("*/balance.json"), key=lambda file: file.parent.name)
    plain = {int(file.parent.name): json.loads(file.read_text(encoding="utf-8")) for file in files}
    return {seed: weights_of(found["scores"], recipe) for seed, found in sorted(plain.items())}


def budget_runs(out: Path) -> list[dict[str, Any]]:
    """What `run` wrote."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.glob("budget-*.json"))]


def budget_weights(out: Path, found: Mapping[str, Any], recipe: Recipe) -> Weights:
    """Those of one budget's run, by its readings as they are taken now."""
    folder = out / "nodes" / found["node"]
    itinerary = Itinerary(**json.loads((folder / "scores-budget.json").read_text(encoding="utf-8"))["itinerary"])
    read, products = probabilities(folder, itinerary), products_of(folder, itinerary)
    return weights_of(full_scores(read, itinerary, products), recipe)


def spearman(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Rank correlation of two vectors by task; equal values share their mean rank."""
    ranks = [_ranks([vector[task] for task in one]) for vector in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1]) if all(np.ptp(each) for each in ranks) else 0.0


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.array(values)
    return (array[:, None] > array).sum(axis=1) + ((array[:, None] == array).sum(axis=1) - 1) / 2


def rmse(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Root of the mean square of the differences."""
    return math.sqrt(statistics.fmean((one[task] - other[task]) ** 2 for task in one))


def mean_of(vectors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Task by task."""
    return {task: statistics.fmean(vector[task] for vector in vectors) for task in vectors[0]}


def agreement(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> str:
    """Mean and range of Spearman, mean RMSE, as cells of a Markdown row."""
    if not pairs:
        return "- | - | -"
    rank, error = [spearman(*pair) for pair in pairs], [rmse(*pair) for pair in pairs]
    return f"{statistics.fmean(rank):.2f} | {min(rank):.2f} to {max(rank):.2f} | {statistics.fmean(error):.3f}"


def summary(out: Path, full: Path, recipe: Recipe) -> str:
    """Markdown: agreement of the final weights and of their parts, and what the runs cost."""
    truth, runs = full_weights(full, recipe), budget_runs(out)
    if not truth:
        sys.exit(f"{full}: no SEED/balance.json there; `equipoise balance RECIPE train.seed=SEED --out {full}/SEED`")
    lines = [f"{len(truth)} seeds of the full probes; Spearman's mean and range, RMSE's mean.", ""]
    for vector in VECTORS:
        lines += [f"| weights by {vector} | Spearman | range | RMSE |", "| --- | --- | --- | --- |"]
        whole = {seed: found[vector] for seed, found in truth.items()}
        lines.append(f"| full, seed against seed | {agreement(list(combinations(whole.values(), 2)))} |")
        lines.append(f"| full, a seed against the mean of the others | {agreement(list(_others(whole)))} |")
        for budget in sorted({found["budget"] for found in runs}):
            chosen = [found for found in runs if found["budget"] == budget]
            cheap = {found["seed"]: budget_weights(out, found, recipe)[vector] for found in chosen}
            same = [(cheap[seed], whole[seed]) for seed in cheap if seed in whole]
            middle = mean_of(list(whole.values()))
            name = f"budget {budget:g}"
            lines.append(f"| {name}, against full of the same seed | {agreement(same)} |")
            lines.append(f"| {name}, against the mean of full | {agreement([(w, middle) for w in cheap.values()])} |")
            lines.append(f"| {name}, seed against seed | {agreement(list(combinations(cheap.values(), 2)))} |")
            averaged = agreement([(mean_of(list(cheap.values())), middle)])
            lines.append(f"| {name}, mean against the mean of full | {averaged} |")
        flat = dict.fromkeys(next(iter(whole.values())), 1.0)
        lines.append(f"| equal weights, against full | {agreement([(flat, w) for w in whole.values()])} |")
        lines.append("")
    return "\n".join([*lines, *_costs(full, runs)])


def _others(whole: Mapping[int, Mapping[str, float]]) -> Iterator[tuple[Mapping[str, float], Mapping[str, float]]]:
    for seed, vector in whole.items():
        others = [other for number, other in whole.items() if number != seed]
        if others:
            yield vector, mean_of(others)


def _costs(full: Path, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each budget's run took, in units of the final run of its seed."""
    lines = ["| budget | seed | training | reading | over the final run |", "| --- | --- | --- | --- | --- |"]
    for found in runs:
        file = full / str(found["seed"]) / "costs.json"
        final = json.loads(file.read_text(encoding="utf-8"))["nodes"]["cotbal"] if file.is_file() else {}
        whole = sum(final.values()) if final and None not in final.values() else None
        spent = found["seconds"]
        share = f"{sum(spent.values()) / whole:.3f}" if whole else "-"
        row = (f"{found['budget']:g}", found["seed"], f"{spent['training']:.0f} s", f"{spent['scoring']:.0f} s", share)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return lines


def figure(out: Path, full: Path, recipe: Recipe, folder: Path) -> None:
    """Final weights by task: the full probes' and the budget's, a point a seed."""
    import plotly.graph_objects as go

    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    from figures import photograph

    from equipoise.report.canvas import dress
    from equipoise.report.palette import colour

    groups = {"full probes": [found["cotbal"] for found in full_weights(full, recipe).values()]}
    for found in budget_runs(out):
        weights = budget_weights(out, found, recipe)["cotbal"]
        groups.setdefault(f"budget {found['budget']:g}", []).append(weights)
    drawn = go.Figure()
    for number, (name, vectors) in enumerate(groups.items()):
        points = [(task, weight) for vector in vectors for task, weight in vector.items()]
        drawn.add_box(
            x=[task for task, _ in points], y=[weight for _, weight in points], name=name, boxpoints="all", pointpos=0,
            jitter=0.3, marker={"color": colour(number)}, line={"width": 1},
        )  # fmt: skip
    drawn.update_layout(boxmode="group", yaxis={"title": "weight"})
    photograph(dress(drawn, 420), folder / "cheap-cotbal.png", 1000, 420)


# ---------------------------------------------------------------------- command line


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("run", help="make the budget's runs, those that OUT lacks")
    making.add_argument("out", type=Path)
    making.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    making.add_argument("--budgets", type=float, nargs="+", default=[0.25])
    showing = commands.add_parser("summary", help="agreement with the full probes, as Markdown")
    drawing = commands.add_parser("figure", help="the weights, as PNG")
    for command in (showing, drawing):
        command.add_argument("out", type=Path, help="of `run`")
        command.add_argument("full", type=Path, help="SEED/balance.json in it")
    drawing.add_argument("folder", type=Path, help="of cheap-cotbal.png")
    for command in (making, showing, drawing):
        command.add_argument("--recipe", type=Path, default=RECIPE)
    return parser.parse_args(arguments)


def main(given: Sequence[str]) -> None:
    """Do what the command line says."""
    arguments = parse(given)
    recipe = load_recipe(arguments.recipe)
    if arguments.command == "run":
        run(recipe, arguments.out, arguments.seeds, arguments.budgets)
    elif arguments.command == "summary":
        print(summary(arguments.out, arguments.full, recipe))
    else:
        figure(arguments.out, arguments.full, recipe, arguments.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
