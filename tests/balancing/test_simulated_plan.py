"""A plan of 100 runs on machines that fail, on a virtual clock: a sample of scripts/simulate_plan.py, and the bound."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import simulate_plan as plans
from simulated_cluster import Faults, Try, VirtualCluster

from equipoise.balancing import execution
from equipoise.tasks.plan import Node

HARSH = Faults(between=12.0, silent=0.2)


@pytest.fixture(scope="module")
def nodes() -> tuple[Node, ...]:
    return plans.hundred(0)


def test_the_plan_is_of_a_hundred_runs(nodes: Sequence[Node]) -> None:
    assert len(nodes) == 100
    assert len({node.name for node in nodes}) == 100
    assert sum(bool(node.needs) for node in nodes) == 8


@pytest.mark.parametrize("machines", [1, 5, 64])
def test_without_faults_no_place_is_idle_that_could_work(nodes: Sequence[Node], machines: int) -> None:
    """Graham's bound holds for every schedule that leaves none idle: work / machines + the longest chain."""
    passed = plans.simulate(nodes, machines, Faults(), 0)
    hours = plans.hours_of(sorted(nodes, key=lambda node: node.name), 0)
    chain = plans.shortest(nodes, hours, 10**9)
    work = plans.shortest(nodes, hours, 1)
    assert passed.commands == 1
    assert passed.lost == 0
    assert passed.hours <= work / machines + chain * (1 - 1 / machines) + 1e-9
    if machines == 1:
        assert passed.ratio == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("saved", [0.25, None])
def test_with_faults_each_run_is_done_once_in_order_and_the_plan_ends(
    nodes: Sequence[Node], seed: int, saved: float | None
) -> None:
    """`simulate` holds what happened against what is promised."""
    faults = replace(HARSH, saved=saved, silent=HARSH.silent if saved is not None else 0.0)
    passed = plans.simulate(nodes, 64, faults, seed)
    assert passed.lost > 5
    assert 1 <= passed.ratio < math.inf


def test_a_run_that_is_given_up_ends_the_command_and_the_next_goes_on(
    nodes: Sequence[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "RETRIES", 0)
    passed = plans.simulate(nodes, 64, HARSH, 0)
    assert passed.commands > 1


@pytest.mark.parametrize("name", plans.ORDERS)
def test_every_order_is_of_the_same_runs_each_after_what_it_needs(nodes: Sequence[Node], name: str) -> None:
    ordered = plans.ORDERS[name](nodes)
    assert sorted(node.name for node in ordered) == sorted(node.name for node in nodes)
    if name == "longest chain first":
        assert ordered[0] == max((node for node in nodes if node.cost < 1), key=lambda node: node.cost)


class Made(VirtualCluster):
    """Two machines and two runs, of which the second needs the first; nothing has happened."""

    def __init__(self, nodes: Sequence[Node]):
        super().__init__(2, {}, 0.0, Faults(), 0)
        probe, final = nodes[0], next(node for node in nodes if node.needs)
        self.nodes_of_it = [probe, replace(final, needs=(probe.name,))]

    def happened(self, *tries: tuple[str, int, float, float, str]) -> None:
        self.tries = [
            Try(name, Path(), (), 60.0, machine, began, began, ended, how, True)
            for name, machine, began, ended, how in tries
        ]
        self.check(self.nodes_of_it)


def test_what_breaks_a_promise_is_seen(nodes: Sequence[Node]) -> None:
    made = Made(nodes)
    first, second = (node.name for node in made.nodes_of_it)
    good: list[Any] = [(first, 0, 0.0, 1.0, "done"), (second, 1, 1.0, 2.0, "done")]
    made.happened(*good)
    broken: dict[str, list[Any]] = {
        "once": [*good, (second, 0, 2.0, 3.0, "done")],
        "began before": [good[0], (second, 1, 0.5, 2.0, "done")],
        "two tries at once": [*good, (second, 0, 1.5, 1.9, "gone")],
    }
    for message, tries in broken.items():
        with pytest.raises(AssertionError, match=message):
            made.happened(*tries)
