"""How near CoTBal's weights for a quarter of a final run come to those of the full probes (docs/experiments.md).

    python -m experiments.cheap_cotbal run OUT --seeds 0,1,2,3,4    # the budget's run for each seed
    python -m experiments.cheap_cotbal summary                      # agreement with the full probes, in Markdown
    python -m experiments.cheap_cotbal summary --seeds 3,4          # of these seeds' budgets
    python -m experiments.cheap_cotbal figure docs                  # the weights side by side (needs Chromium)

`run` makes of each seed what `equipoise balance RECIPE --budget` makes before the final run, and no final run. What is
in OUT already is left as it is, so the same command goes on where it was stopped; what it measured is recorded in
experiments/records/budget. The full probes are those that `python -m experiments.cotbal run` recorded; their final
runs are needed for the costs alone.

Agreement is Spearman's rank correlation of the tasks' weights, and the root mean square of their differences (RMSE).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.stats import spearmanr

from equipoise.balancing.nodes import cost_of, estimates_of, facts_of, node_folder, read_data, run_node
from equipoise.console import PlainConsole
from equipoise.locks import PATIENCE
from equipoise.recipe import CoTBal, Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.report.canvas import dress
from equipoise.report.palette import colour
from equipoise.tasks.contribution import MINI, TaskBalance, balance_tasks
from equipoise.tasks.plan import BUDGET, FINAL, make_plan
from equipoise.training.run_directory import write_json
from experiments import cotbal
from experiments.cotbal import ANSWERS, RECIPE, VECTORS, found, numbers
from experiments.records import RECORDS
from experiments.tables import row
from scripts.figures import photograph

#: Of a budget's runs also: `cotbal` where every contribution is taken for 0, as if no gradient had been compared.
ALONE = "difficulty alone"
Vectors = dict[int, np.ndarray]
"""By seed, weights [tasks]."""
Pairs = list[tuple[np.ndarray, np.ndarray]]
#: How often a seed's validation answers are drawn anew.
DRAWS = 200
RECORDED = RECORDS / "budget"

# ---------------------------------------------------------------------- runs


def run(recipe: Recipe, out: Path, seeds: Sequence[int], budget: float) -> None:
    """Make the runs that are not there yet, one after the other, and record them."""
    console = PlainConsole()
    settings = recipe.balance.cotbal.model_copy(update={"budget": budget, "on_degenerate": "zero"})
    balance = recipe.balance.model_copy(update={"cotbal": settings})
    RECORDED.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        train = recipe.train.model_copy(update={"seed": seed})
        changed = recipe.model_copy(update={"balance": balance, "train": train})
        data = read_data(changed, console.print)
        [node] = [node for node in make_plan(changed, *facts_of(changed, data)).nodes if node.name == BUDGET]
        folder = node_folder(out / "nodes", node.name, node.recipe, data, node.itinerary)
        told = node.recipe, folder, node.scored_on, console, PATIENCE
        run_node(f"budget {budget:g}, seed {seed}", *told, itinerary=node.itinerary)
        content = {"seed": seed, "budget": budget, "node": folder.name, "seconds": cost_of(folder, node.scored_on)}
        write_json(RECORDED / f"{budget:g}-{seed}.json", {**content, "runs": estimates_of(folder)})


# ---------------------------------------------------------------------- what came out


class Weights:
    """The weights that were found.

    Attributes:
        tasks: their names, in the order of all vectors.
        full: by vector, by seed, those of the full probes.
        redrawn: by vector, pairs: those of a seed's full probes, and the same with its validation answers drawn anew.
        budgets: by budget, by vector, by seed.
        costs: by budget, by seed, the seconds of its parts.
    """

    def __init__(self, budgets: Path, full: Path, recipe: Recipe, seeds: Sequence[int] | None = None):
        """Read what was recorded of the budgets, of these seeds (all when None), and of all full probes."""
        probes = found(full, "balance.json")
        if not probes:
            sys.exit(f"{full}: no SEED/balance.json there; `python -m experiments.cotbal run OUT` makes them")
        self.tasks: list[str] = next(iter(probes.values()))["tasks"]
        self.full = {
            name: {
                seed: np.array([content["weights"][name][task] for task in self.tasks])
                for seed, content in probes.items()
            }
            for name in VECTORS
        }
        self.redrawn: dict[str, Pairs] = {name: [] for name in VECTORS}
        self.budgets: dict[float, dict[str, Vectors]] = {}
        self.costs: dict[float, dict[int, dict[str, float]]] = {}
        for seed, answers in found(full, ANSWERS).items():
            for balance in redrawn(answers, recipe.balance.cotbal):
                for name in VECTORS:
                    drawn = dict(zip(balance.tasks, balance.weights[name], strict=True))
                    pair = self.full[name][seed], np.array([drawn[task] for task in self.tasks])
                    self.redrawn[name].append(pair)
        for file in sorted(budgets.glob("*.json")):
            made = json.loads(file.read_text(encoding="utf-8"))
            if seeds is None or made["seed"] in seeds:
                self._take(made, recipe.balance.cotbal)

    def _take(self, made: Mapping[str, Any], settings: CoTBal) -> None:
        """One file of `run`."""
        balance = balance_tasks(made["runs"], settings.temperature, settings.alpha, "zero")
        vectors = {name: balance.weights[name] for name in VECTORS}
        vectors[ALONE] = settings.alpha + (1 - settings.alpha) * vectors["difficulty"]
        by_vector = self.budgets.setdefault(made["budget"], {name: {} for name in vectors})
        for name, vector in vectors.items():
            weights = dict(zip(balance.tasks, vector, strict=True))
            by_vector[name][made["seed"]] = np.array([weights[task] for task in self.tasks])
        self.costs.setdefault(made["budget"], {})[made["seed"]] = made["seconds"]


def redrawn(answers: Mapping[str, Mapping[str, Sequence[float]]], settings: CoTBal) -> Iterator[TaskBalance]:
    """What the full probes of one seed would say with other validation answers: as many, drawn from theirs.

    Args:
        answers: by probe, by task, the score of each.
    """
    scores = {run: {task: np.array(own) for task, own in by_task.items()} for run, by_task in answers.items()}
    generator = np.random.default_rng(0)
    for _ in range(DRAWS):
        # All probes answer the same questions.
        rows = {task: generator.integers(len(own), size=len(own)) for task, own in scores[MINI].items()}
        drawn = {
            run: {task: float(own[rows[task]].mean()) for task, own in by_task.items()}
            for run, by_task in scores.items()
        }
        yield balance_tasks(drawn, settings.temperature, settings.alpha, "zero")


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; 0 where one of them ranks nothing."""
    return float(spearmanr(one, other).statistic) if np.ptp(one) and np.ptp(other) else 0.0


def rmse(one: np.ndarray, other: np.ndarray) -> float:
    """Root of the mean square of the differences."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


def summary(weights: Weights, full: Path) -> str:
    """Markdown: agreement of the weights and of their parts, seed by seed too, and what the runs cost."""
    parts = [agreements(weights, name) for name in reversed(VECTORS)]
    for budget, vectors in weights.budgets.items():
        parts.append(against_others(f"budget {budget:g}", vectors["cotbal"], weights.full["cotbal"]))
        parts.append(by_seed(vectors["cotbal"], weights.full["cotbal"]))
    return "\n\n".join([*parts, costs(weights, full)])


def agreements(weights: Weights, vector: str) -> str:
    """Who agrees with whom on one vector, over seeds."""
    full = weights.full[vector]
    lines = [row([f"weights by `{vector}`", "Spearman", "range", "RMSE"]), row(["---"] * 4)]
    lines.append(_agreement("full probes, seed against seed", list(combinations(full.values(), 2))))
    lines.append(_agreement("full probes, a seed against the mean of the others", list(_with_others(full, full))))
    lines.append(_agreement("full probes, their validation answers drawn anew", weights.redrawn[vector]))
    for budget, by_vector in weights.budgets.items():
        cheap, name = by_vector[vector], f"budget {budget:g}"
        same = _with_same(cheap, full)
        other = [(own, whole) for seed, own in cheap.items() for number, whole in full.items() if number != seed]
        lines.append(_agreement(f"{name}, against full probes of the same seed", same))
        lines.append(_agreement(f"{name}, against full probes of another seed", other))
        lines.append(_agreement(f"{name}, against the mean of the others", list(_with_others(cheap, full))))
        lines.append(_agreement(f"{name}, seed against seed", list(combinations(cheap.values(), 2))))
        if vector == "cotbal":
            alone = by_vector[ALONE]
            lines.append(_agreement(f"{name}, {ALONE}, against full probes of the same seed", _with_same(alone, full)))
            others = list(_with_others(alone, full))
            lines.append(_agreement(f"{name}, {ALONE}, against the mean of the others", others))
    lines.append(_agreement("equal weights, against full probes", [(np.ones(len(w)), w) for w in full.values()]))
    return "\n".join(lines)


def against_others(name: str, cheap: Vectors, full: Vectors) -> str:
    """A seed's budget, its full probes and equal weights, each against the mean of the full probes of the other seeds.

    Seed by seed, and not tested: any two of these means share all seeds but two.
    """
    seeds = [seed for seed in cheap if seed in full]
    kinds = {"full probes": full, name: cheap, "equal weights": {seed: np.ones(len(full[seed])) for seed in seeds}}
    lines = [row(["against the mean of the other seeds' full probes", *(f"seed {seed}" for seed in seeds), "mean"])]
    lines.append(row(["---"] * (len(seeds) + 2)))
    for title, measure, digits in (("Spearman", spearman, 2), ("RMSE", rmse, 3)):
        for kind, vectors in kinds.items():
            found = [measure(*pair) for pair in _with_others({seed: vectors[seed] for seed in seeds}, full)]
            texts = [f"{value:.{digits}f}" for value in [*found, fmean(found)]] if found else []
            lines.append(row([f"{title}, {kind}", *texts]))
    return "\n".join(lines)


def by_seed(cheap: Vectors, full: Vectors) -> str:
    """Each seed's budget against the full probes of the same seed."""
    lines = [row(["seed", "Spearman", "RMSE"]), row(["---"] * 3)]
    for seed in sorted(set(cheap) & set(full)):
        pair = cheap[seed], full[seed]
        lines.append(row([str(seed), f"{spearman(*pair):.2f}", f"{rmse(*pair):.3f}"]))
    return "\n".join(lines)


def costs(weights: Weights, full: Path) -> str:
    """What each budget's run took, in units of the final run of its seed."""
    titles = ["budget", "seed", "training", "reading", "over the final run"]
    lines, final = [row(titles), row(["---"] * len(titles))], found(full, "costs.json")
    for budget, by_seed in weights.costs.items():
        for seed, spent in by_seed.items():
            parts = final.get(seed, {}).get("nodes", {}).get(FINAL, {}).values()
            known = parts and None not in parts
            share = f"{sum(spent.values()) / sum(parts):.3f}" if known else ""
            lines.append(
                row([f"{budget:g}", str(seed), f"{spent['training']:.0f} s", f"{spent['scoring']:.0f} s", share])
            )
    return "\n".join(lines)


def _agreement(name: str, pairs: Pairs) -> str:
    if not pairs:
        return row([name, "", "", ""])
    ranks, errors = [spearman(*pair) for pair in pairs], [rmse(*pair) for pair in pairs]
    return row([name, f"{fmean(ranks):.2f}", f"{min(ranks):.2f} to {max(ranks):.2f}", f"{fmean(errors):.3f}"])


def _with_same(vectors: Vectors, full: Vectors) -> Pairs:
    return [(vector, full[seed]) for seed, vector in vectors.items() if seed in full]


def _with_others(vectors: Mapping[int, np.ndarray], full: Vectors) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seed, vector in vectors.items():
        others = [other for number, other in full.items() if number != seed]
        if others:
            yield vector, np.mean(others, axis=0)


def figure(weights: Weights, folder: Path) -> None:
    """Final weights by task: the full probes' and the budgets', a point a seed."""
    groups = {"full probes": weights.full} | {f"budget {budget:g}": made for budget, made in weights.budgets.items()}
    drawn = go.Figure()
    for number, (name, by_vector) in enumerate(groups.items()):
        vectors = list(by_vector["cotbal"].values())
        drawn.add_box(
            x=weights.tasks * len(vectors), y=np.concatenate(vectors), name=name, boxpoints="all", pointpos=0,
            jitter=0.3, marker={"color": colour(number)}, line={"width": 1},
        )  # fmt: skip
    drawn.update_layout(boxmode="group", yaxis={"title": "weight"})
    photograph(dress(drawn, 420), folder / "cheap-cotbal.png", 1000, 420)


# ---------------------------------------------------------------------- command line


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("run", help="make the budget's runs, those that OUT lacks")
    showing = commands.add_parser("summary", help="agreement with the full probes, as Markdown")
    drawing = commands.add_parser("figure", help="the weights, as PNG")
    making.add_argument("out", type=Path)
    making.add_argument("--budget", type=float, default=0.25)
    drawing.add_argument("folder", type=Path, help="of cheap-cotbal.png")
    for command in (making, showing):
        default = [0, 1, 2, 3, 4] if command is making else None
        command.add_argument("--seeds", type=numbers, default=default, help="of the budget's runs")
    for command in (making, showing, drawing):
        command.add_argument("--recipe", type=Path, default=RECIPE)
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    if given.command == "run":
        run(recipe, given.out, given.seeds, given.budget)
    elif given.command == "summary":
        print(summary(Weights(RECORDED, cotbal.RECORDED, recipe, given.seeds), cotbal.RECORDED))
    else:
        figure(Weights(RECORDED, cotbal.RECORDED, recipe), given.folder)


if __name__ == "__main__":
    main()
