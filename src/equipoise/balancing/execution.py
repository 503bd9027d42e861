"""Where a plan's nodes run: one after the other in this process, or several at once in places that `Slots` stand for.

A place may die (a killed process, a machine that is gone): its node is then given to another and goes on from what it
left. A place may also be stopped, come back or not, and keep its node from all others meanwhile: the node is then tried
again after all that can be run without it, and given up only once nothing else runs. A node that fails by itself is not
tried again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import yaml
from rich.console import Console

from equipoise.balancing.nodes import is_done, run_node, tidy
from equipoise.errors import EquipoiseError, RunError
from equipoise.locks import PATIENCE, Held
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe
from equipoise.stopping import check, finishing
from equipoise.tasks.itinerary import Itinerary
from equipoise.tasks.plan import Node, Scoring

#: How often a node whose place dies, or is stopped while nothing else runs, is tried again.
RETRIES = 3


@dataclass(frozen=True)
class Work:
    """One node, as whoever runs it is told.

    Attributes:
        name: of the node.
        recipe: whole, weights included.
        folder: its run directory.
        splits: what it is scored on.
        patience: seconds after which another process that has it and shows no life counts as stopped.
        validation_loss: whether it is computed with the scores.
        itinerary: of the node that stands for all probes.
    """

    name: str
    recipe: Recipe
    folder: Path
    splits: tuple[Scoring, ...]
    patience: float = PATIENCE
    validation_loss: bool = False
    itinerary: Itinerary | None = None

    @property
    def log(self) -> Path:
        """What a place prints that is not this process."""
        return self.folder.parent.parent / "logs" / f"{self.folder.name}.log"

    def run(self, console: Console) -> None:
        """Train and score."""
        told = self.patience, self.validation_loss, self.itinerary
        run_node(self.name, self.recipe, self.folder, self.splits, console, *told)

    def to_json(self) -> str:
        """One line, from which another process makes the same work."""
        plain = {"name": self.name, "recipe": self.recipe.to_yaml(), "folder": str(self.folder), "splits": self.splits}
        itinerary = asdict(self.itinerary) if self.itinerary is not None else None
        told = {"patience": self.patience, "validation_loss": self.validation_loss, "itinerary": itinerary}
        return json.dumps({**plain, **told})

    @classmethod
    def from_json(cls, text: str) -> Work:
        """The inverse of `to_json`."""
        plain = json.loads(text)
        recipe = parse_recipe(yaml.safe_load(plain["recipe"]), "its recipe")
        itinerary = Itinerary(**plain["itinerary"]) if plain["itinerary"] is not None else None
        told = plain["patience"], plain["validation_loss"], itinerary
        return cls(plain["name"], recipe, Path(plain["folder"]), tuple(plain["splits"]), *told)


@dataclass(frozen=True)
class Outcome:
    """How a node ended.

    Attributes:
        work: what was asked.
        death: why the place is gone; None where it is not.
        held: who has the node's lock and shows no life; None where nobody does.
        error: why the node failed; None where it did not.
    """

    work: Work
    death: str | None = None
    held: str | None = None
    error: EquipoiseError | None = None


class Slots(Protocol):
    """Places that run one node each."""

    @property
    def count(self) -> int:
        """How many there are now."""
        ...

    def start(self, work: Work) -> str | None:
        """Let a place run it; say where (`on ...`) if not in this process."""
        ...

    def next(self) -> Outcome | None:
        """Wait until one ends; None where none has for some time, so that new places are seen."""
        ...

    def stop(self) -> None:
        """End everything that still runs; called once, at the end."""
        ...


class Here:
    """This process: one node at a time, its progress in this terminal."""

    count = 1

    def __init__(self, console: Console):
        self.console = console
        self._work: Work | None = None

    def start(self, work: Work) -> None:
        self._work = work

    def next(self) -> Outcome:
        assert self._work is not None
        try:
            self._work.run(self.console)
        except Held as error:
            return Outcome(self._work, held=str(error))
        return Outcome(self._work)

    def stop(self) -> None:
        pass


def carry_out(
    nodes: Sequence[Node],
    slots: Slots,
    prepare: Callable[[Node], Work],
    conclude: Callable[[Node, Work], None],
    console: Console,
) -> None:
    """Run nodes, each once those it needs are done; what is done already is only concluded.

    Args:
        nodes: each after those it needs; started in this order as far as places allow.
        slots: where they run.
        prepare: makes a node's work, once the nodes it needs are concluded.
        conclude: takes what a node left.
        console: for a line when a node begins or ends.

    Raises:
        EquipoiseError: of a node, or of `prepare` or `conclude`; whatever else runs is stopped first.
        RunError: a node's place died, or was stopped, again and again.
        Stopped: this process was asked to.
    """
    waiting, running, setbacks = list(nodes), dict[str, Node](), Counter[str]()
    prepared: dict[str, Work] = {}
    told: dict[str, str] = {}
    concluded: set[str] = set()

    def begin(node: Node, work: Work) -> None:
        console.rule(f"[{len(concluded) + len(running) + 1}/{len(nodes)}] {node.name}")
        with finishing():  # a place that has begun and is not known of could not be stopped
            where = slots.start(work)
        running[node.name] = node
        if where is not None:
            console.print(f"{node.name}: runs {where}; its log is {work.log}", highlight=False)

    def end(node: Node, work: Work, how: str) -> None:
        conclude(node, work)
        concluded.add(node.name)
        console.print(f"{node.name}: {how}", highlight=False)

    try:
        while waiting or running:
            check()
            ready = next((node for node in waiting if concluded.issuperset(node.needs)), None)
            if ready is not None and len(running) < slots.count:
                waiting.remove(ready)
                work = prepared[ready.name] if ready.name in prepared else prepare(ready)
                if is_done(work.folder, work.splits):
                    tidy(work.folder)
                    end(ready, work, "already done")
                else:
                    begin(ready, work)
                continue
            outcome = slots.next()
            if outcome is None:
                continue
            work = outcome.work
            node = running.pop(work.name)
            if outcome.error is not None:
                raise outcome.error
            setback = outcome.death or outcome.held
            if setback is None:
                end(node, work, "done")
                continue
            if outcome.held is not None:
                # The stopped place may come back and finish it, or be ended, while others run; none can hurry that.
                prepared[node.name] = work
                waiting.append(node)
                if running:  # nor are they stopped for its sake
                    if told.get(node.name) != setback:
                        console.print(f"{node.name}: {setback}; tried again while others run", highlight=False)
                    told[node.name] = setback
                    continue
            setbacks[node.name] += 1
            if setbacks[node.name] > RETRIES:
                raise RunError(f"{node.name}: given up after {RETRIES + 1} tries, at last: {setback}; {work.log}")
            console.print(f"{node.name}: {setback}; again, {setbacks[node.name]} of {RETRIES}", highlight=False)
            if outcome.held is None:
                begin(node, work)
    finally:
        with finishing():
            slots.stop()
