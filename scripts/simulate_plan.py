"""A plan of 100 runs on a cluster whose machines fail: how long it takes beside the shortest time that could be.

    python scripts/simulate_plan.py                       # the tables, in Markdown (about three minutes)
    python scripts/simulate_plan.py --figure docs         # and docs/cluster-plan.png (needs Chromium)
    python scripts/simulate_plan.py --machines 64 --seeds 3

The plan is the engine's own (29 tasks, their Table 3 and comparisons), and so is what schedules it; the machines and
their clock are pretended (simulated_cluster.py). The final run takes 10 hours, every other one in proportion to its
cost; each is multiplied by a log-normal number of mean 1. The shortest time is the longer of two: the longest chain of
runs that need each other, and all runs' hours over the number of machines. No schedule beats it, on machines that never
fail or on others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import plotly.graph_objects as go
from figures import photograph
from rich.console import Console
from simulated_cluster import Faults, VirtualCluster

from equipoise.balancing import on_ray
from equipoise.balancing.execution import Work, carry_out
from equipoise.balancing.on_ray import RaySlots
from equipoise.errors import RunError
from equipoise.recipe import Recipe
from equipoise.report.canvas import AXIS, dress
from equipoise.report.palette import DASHES, colour
from equipoise.tasks.plan import METHODS, Node, make_plan

TASKS = 29
#: Hours of the final run on average, and of loading, which each try begins with.
FINAL_HOURS, LOADING = 10.0, 0.05
#: Of the logarithm of a run's hours beside what the plan says.
SPREAD = 0.4
#: Mean hours between two deaths of a machine.
RATES = (1000.0, 200.0, 50.0, 20.0)
MACHINES = (8, 16, 32, 64)
#: How often the command is given again, at most, and hours until it is.
COMMANDS, AGAIN = 200, 1 / 6
SILENT = Console(quiet=True)


def hundred(seed: int) -> tuple[Node, ...]:
    """CoTBal on 29 tasks whose sizes differ by orders of magnitude, with Table 3's rows and all but one comparison."""
    tasks = [{"name": f"t{n}", "reader": "easy_vqa", "metric": "exact_match"} for n in range(TASKS)]
    recipe = Recipe.model_validate({"model": {"path": "a/b"}, "tasks": tasks})
    sizes = np.random.default_rng(seed).lognormal(math.log(20_000), 1.0, TASKS).astype(int)
    names = [task["name"] for task in tasks]
    counts = dict(zip(names, map(int, sizes), strict=True))
    return make_plan(recipe, counts, counts, counts, METHODS[:-1], ablations=True).nodes


def hours_of(nodes: Sequence[Node], seed: int) -> dict[str, float]:
    """How long each run takes."""
    noise = np.random.default_rng((seed, 1)).lognormal(-SPREAD * SPREAD / 2, SPREAD, len(nodes))
    return {node.name: FINAL_HOURS * node.cost * float(factor) for node, factor in zip(nodes, noise, strict=True)}


def shortest(nodes: Sequence[Node], hours: Mapping[str, float], machines: int) -> float:
    """The bound, in hours; loading counts once a run."""
    chain: dict[str, float] = {}
    for node in nodes:
        chain[node.name] = LOADING + hours[node.name] + max((chain[need] for need in node.needs), default=0.0)
    return max(max(chain.values()), sum(LOADING + hours[node.name] for node in nodes) / machines)


@dataclass(frozen=True)
class Passed:
    """How a plan went.

    Attributes:
        hours: from its beginning to its end.
        bound: the shortest there could be.
        lost: tries that ended with their machine.
        commands: how often the command had to be given, once where no run was given up.
    """

    hours: float
    bound: float
    lost: int
    commands: int

    @property
    def ratio(self) -> float:
        return self.hours / self.bound


#: A recipe that nobody reads.
TINY = Recipe.model_validate({"model": {"path": "a/b"}, "tasks": [{"name": "t", "reader": "easy_vqa"}]})


class Named(Work):
    """A run that is told without its recipe, which takes longer to write down than all else that is simulated."""

    def to_json(self) -> str:
        told = {"name": self.name, "folder": str(self.folder), "splits": self.splits, "patience": self.patience}
        return json.dumps(told)


def simulate(nodes: Sequence[Node], machines: int, faults: Faults, seed: int) -> Passed:
    """Run a plan, giving the command again ten minutes after it gives up; check all that is promised.

    Args:
        nodes: in the order in which the engine is to start them.
        machines: of the cluster, each with one place.
        faults: what goes wrong.
        seed: of the runs' hours and of what goes wrong.
    """
    hours = hours_of(sorted(nodes, key=lambda node: node.name), seed)
    chain = sorted(nodes, key=lambda node: len(node.needs))  # no run that is needed needs another
    cluster = VirtualCluster(machines, hours, LOADING, faults, seed)
    with tempfile.TemporaryDirectory() as scratch, patch.object(on_ray, "ray", cluster):
        folder = Path(scratch)

        def prepare(node: Node) -> Work:
            return Named(node.name, TINY, folder / "nodes" / node.name, node.scored_on)

        commands = 0
        while True:
            commands += 1
            assert commands <= COMMANDS, "the plan does not end"
            try:
                slots = RaySlots("auto", folder, 1, 0, SILENT)
                carry_out(nodes, slots, prepare, lambda node, work: None, SILENT)
                break
            except RunError:
                cluster.let_pass(AGAIN)
    cluster.check(nodes)
    lost = sum(one.how == "gone" for one in cluster.tries)
    passed = Passed(cluster.now, shortest(chain, hours, machines), lost, commands)
    assert passed.ratio > 1 - 1e-9, "no plan is faster than the bound"
    return passed


# ---------------------------------------------------------------------- what is shown


def spread(values: Sequence[float]) -> str:
    return f"{np.median(values):.2f} ({max(values):.2f})"


def longest_first(nodes: Sequence[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: -node.cost)


def longest_chain_first(nodes: Sequence[Node]) -> list[Node]:
    """By the cost of the longest chain of runs that begins with each."""
    follows: dict[str, float] = {}
    for node in reversed(nodes):
        for need in node.needs:
            follows[need] = max(follows.get(need, 0.0), node.cost + follows.get(node.name, 0.0))
    return sorted(nodes, key=lambda node: -node.cost - follows.get(node.name, 0.0))


ORDERS: dict[str, Callable[[Sequence[Node]], Sequence[Node]]] = {
    "the plan's order": tuple,
    "longest first": longest_first,
    "longest chain first": longest_chain_first,
}


def orders(seeds: int, machines: Sequence[int]) -> str:
    """Without faults: the engine's order, which is the plan's, beside others."""
    lines = [f"| machines | bound, hours | {' | '.join(ORDERS)} |", f"| --- | --- |{' --- |' * len(ORDERS)}"]
    for count in machines:
        found = {
            name: [simulate(order(hundred(seed)), count, Faults(), seed) for seed in range(seeds)]
            for name, order in ORDERS.items()
        }
        bound = np.median([one.bound for one in found["longest first"]])
        cells = [spread([one.ratio for one in passed]) for passed in found.values()]
        lines.append(f"| {count} | {bound:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


#: What a death costs: up to 15 minutes, these and the time until the machine is back, or the run so far.
KINDS: dict[str, dict[str, Any]] = {
    "shared disk": {"saved": 0.25},
    "shared disk, run held": {"saved": 0.25, "silent": 1.0},
    "no shared disk": {"saved": None},
}
#: By number of machines, kind of death, and hours between two.
Results = dict[tuple[int, str, float], list[Passed]]


def with_faults(seeds: int, machines: Sequence[int]) -> Results:
    """All plans by all numbers of machines, kinds of deaths and rates."""
    return {
        (count, kind, between): [
            simulate(hundred(seed), count, Faults(between, **settings), seed) for seed in range(seeds)
        ]
        for count in machines
        for kind, settings in KINDS.items()
        for between in RATES
    }


def table(found: Results) -> str:
    lines = [
        "| machines | kind | hours between two of a machine | tries lost | time over bound | commands |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (count, kind, between), passed in found.items():
        lost = np.median([one.lost for one in passed])
        commands = [one.commands for one in passed]
        lines.append(
            f"| {count} | {kind} | {between:g} | {lost:g} | {spread([one.ratio for one in passed])} | "
            f"{np.mean(commands):.1f} ({max(commands)}) |"
        )
    return "\n".join(lines)


def figure(found: Results) -> go.Figure:
    """Time over bound by rate of deaths, up to the worst: a colour for each number of machines, a dash a kind."""
    drawn = go.Figure()
    counts = list(dict.fromkeys(count for count, _, _ in found))
    for count in counts:
        for kind, dash in zip(KINDS, DASHES, strict=False):
            ratios = [[one.ratio for one in found[count, kind, between]] for between in RATES]
            medians = [float(np.median(values)) for values in ratios]
            worst = [max(values) - middle for values, middle in zip(ratios, medians, strict=True)]
            drawn.add_scatter(
                x=[1000 / between * 1.02 ** list(KINDS).index(kind) for between in RATES],  # bars beside each other
                y=medians,
                error_y={"array": worst, "arrayminus": [0] * len(worst), "thickness": 1},
                name=f"{count} machines; {kind}",
                line={"color": colour(counts.index(count)), "dash": dash},
                marker={"size": 5},
            )
    dress(drawn, 480)
    drawn.update_layout(margin={"t": 84}, legend={"entrywidth": 260})
    ticks = [1000 / between for between in RATES]
    drawn.update_xaxes(**AXIS, title_text="deaths of a machine in 1000 hours", type="log", tickvals=ticks)
    drawn.update_yaxes(**AXIS, title_text="time of the plan over the shortest")
    return drawn


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, nargs="+", default=list(MACHINES), help="by default 8 16 32 64")
    parser.add_argument("--seeds", type=int, default=20, help="plans of each kind (20)")
    parser.add_argument("--figure", type=Path, metavar="FOLDER", help="also draw cluster-plan.png there")
    arguments = parser.parse_args(given)
    print(f"{arguments.seeds} plans of {len(hundred(0))} runs each; medians over the plans, in brackets the worst\n")
    print("Without deaths, time over bound:\n")
    print(orders(arguments.seeds, arguments.machines), flush=True)
    found = with_faults(arguments.seeds, arguments.machines[:1] + arguments.machines[-1:])
    print("\nWith deaths, in the plan's order:\n")
    print(table(found))
    if arguments.figure is not None:
        photograph(figure(found), arguments.figure / "cluster-plan.png", 900, 480)


if __name__ == "__main__":
    main(sys.argv[1:])
