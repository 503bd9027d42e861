"""The order in which nodes run, and what becomes of places that die; the places are pretended, the plan is real."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from equipoise.balancing.execution import RETRIES, Outcome, Work, carry_out
from equipoise.errors import DataError, RunError
from equipoise.recipe import Recipe
from equipoise.stopping import Stopped, stoppable
from equipoise.tasks.plan import Node


class Pretended:
    """Places in which the newest run ends first, some in a death, and some held by a place that was stopped.

    Attributes:
        begun: names, in the order in which they were started.
        most: how many ran at once.
    """

    def __init__(
        self, count: int, deaths: dict[str, int], failing: str | None = None, held: dict[str, int] | None = None
    ):
        self.count, self.deaths, self.failing, self.held = count, deaths, failing, held or {}
        self.begun: list[str] = []
        self.most = 0
        self.stopped = False
        self._running: list[Work] = []
        self._idle = True

    def start(self, work: Work) -> str | None:
        self.begun.append(work.name)
        self._running.append(work)
        self.most = max(self.most, len(self._running))
        return "on nothing"

    def next(self) -> Outcome | None:
        self._idle = not self._idle
        if not self._idle:
            return None
        work = self._running.pop()
        if self.deaths.get(work.name, 0) > 0:
            self.deaths[work.name] -= 1
            return Outcome(work, death="it was pulled out")
        if self.held.get(work.name, 0) > 0:
            self.held[work.name] -= 1
            return Outcome(work, held="a stopped place has it")
        if work.name == self.failing:
            return Outcome(work, error=DataError("broken"))
        return Outcome(work)

    def stop(self) -> None:
        self.stopped = True


def graph(recipe: Recipe) -> list[Node]:
    """Three probes, a run that needs them, one that needs nothing."""
    names = ("a", "b", "c")
    probes = [Node(name, recipe, ("validation",), 0.1) for name in names]
    return [*probes, Node("final", recipe, ("test",), 1.0, names), Node("other", recipe, ("test",), 1.0)]


def carried_out(slots: Pretended, recipe: Recipe, folder: Path) -> tuple[list[str], str]:
    concluded: list[str] = []
    console = Console(file=io.StringIO(), width=200)

    def prepare(node: Node) -> Work:
        assert set(node.needs) <= set(concluded)
        return Work(node.name, recipe, folder / "nodes" / node.name, node.scored_on)

    def conclude(node: Node, work: Work) -> None:
        assert node.name == work.name
        concluded.append(node.name)

    try:
        carry_out(graph(recipe), slots, prepare, conclude, console)
    finally:
        assert slots.stopped
    return concluded, console.file.getvalue()


def test_one_place_keeps_the_order_of_the_plan(recipe, tmp_path):
    slots = Pretended(1, {})
    assert carried_out(slots, recipe, tmp_path)[0] == ["a", "b", "c", "final", "other"]
    assert slots.most == 1


@pytest.mark.parametrize(("count", "most"), [(2, 2), (4, 4), (9, 4)])
def test_several_places_are_filled_and_nothing_begins_before_what_it_needs(recipe, tmp_path, count, most):
    slots = Pretended(count, {})
    concluded, _ = carried_out(slots, recipe, tmp_path)
    assert sorted(concluded) == ["a", "b", "c", "final", "other"]
    assert slots.most == most


class AskedToStop(Pretended):
    """Places during one of whose calls this process is asked to stop."""

    def __init__(self, while_in: str, **options: Any):
        super().__init__(1, {}, **options)
        self.while_in = while_in

    def _ask(self, call: str) -> None:
        if call == self.while_in:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # Python's handlers run between its instructions

    def start(self, work: Work) -> str | None:
        self._ask("start")
        return super().start(work)

    def next(self) -> Outcome | None:
        self._ask("next")
        return super().next()

    def stop(self) -> None:
        self._ask("stop")
        super().stop()


@pytest.mark.parametrize(("while_in", "running"), [("start", ["a"]), ("next", ["a"])])
def test_asked_to_stop_places_that_have_begun_are_stopped(recipe, tmp_path, while_in, running):
    slots = AskedToStop(while_in)
    with pytest.raises(Stopped), stoppable():
        carried_out(slots, recipe, tmp_path)
    assert slots.begun == [work.name for work in slots._running] == running


def test_stopping_places_is_not_stopped_itself(recipe, tmp_path):
    with pytest.raises(DataError, match="broken"), stoppable():
        carried_out(AskedToStop("stop", failing="a"), recipe, tmp_path)


def test_a_death_is_retried_and_said(recipe, tmp_path):
    slots = Pretended(2, {"b": RETRIES, "final": 1})
    concluded, printed = carried_out(slots, recipe, tmp_path)
    assert sorted(concluded) == ["a", "b", "c", "final", "other"]
    assert slots.begun.count("b") == RETRIES + 1
    assert slots.begun.count("final") == 2
    assert f"b: it was pulled out; again, {RETRIES} of {RETRIES}" in printed


def test_a_place_that_dies_for_ever_ends_it(recipe, tmp_path):
    with pytest.raises(RunError, match=r"^c: given up after 4 tries, at last: it was pulled out; .*logs/c\.log$"):
        carried_out(Pretended(3, {"c": 99}), recipe, tmp_path)


def test_a_run_that_is_held_stops_no_other(recipe, tmp_path):
    """It is tried as often as there are others at work, and said once."""
    slots = Pretended(2, {}, held={"c": 20})
    concluded, printed = carried_out(slots, recipe, tmp_path)
    assert sorted(concluded) == ["a", "b", "c", "final", "other"]
    assert slots.begun.count("c") == 21
    assert printed.count("c: a stopped place has it") == 1


def test_a_run_that_is_held_when_nothing_else_runs_is_given_up(recipe, tmp_path):
    with pytest.raises(RunError, match=r"^final: given up after 4 tries, at last: a stopped place has it; "):
        carried_out(Pretended(2, {}, held={"final": 99}), recipe, tmp_path)


def test_a_failure_ends_it_at_once(recipe, tmp_path):
    slots = Pretended(1, {}, failing="b")
    with pytest.raises(DataError, match=r"^broken$"):
        carried_out(slots, recipe, tmp_path)
    assert slots.begun == ["a", "b"]


def test_work_is_the_same_after_a_journey(recipe, tmp_path):
    work = Work("mini", recipe, tmp_path / "nodes" / "mini-1", ("validation", "test"), 5.0, validation_loss=True)
    assert Work.from_json(work.to_json()) == work
