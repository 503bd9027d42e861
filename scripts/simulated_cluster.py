"""A Ray cluster on a virtual clock: its machines die and come back, its runs take the hours they are told to take.

It stands where `equipoise.balancing.on_ray` has the `ray` module. So the engine's own code fills the places, sees
deaths and tries again (`carry_out`, `RaySlots`), and a plan of days passes in a tenth of a second. Nothing is trained.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ray.exceptions import WorkerCrashedError

from equipoise.balancing.remote import End
from equipoise.tasks.plan import Node

SECOND = 1 / 3600


@dataclass(frozen=True)
class Faults:
    """What goes wrong, in hours.

    Attributes:
        between: mean time between two deaths of a machine, exponential; infinite: none dies.
        away: mean time after which it is back, exponential, counted from when the cluster has noticed.
        noticed: after which the cluster sees that a machine is gone; Ray's health checks take about half a minute.
        saved: time between two checkpoints of a run; None: whoever takes over begins anew (no disk is shared).
        silent: share of deaths that leave the run's lock held until the machine is back: it hangs, on a shared disk.
    """

    between: float = math.inf
    away: float = 1.0
    noticed: float = 30 * SECOND
    saved: float | None = 0.25
    silent: float = 0.0


@dataclass(eq=False)
class Try:
    """One go at a run, on one machine; it is also the stream of what its worker sends.

    Attributes:
        name, folder, splits, patience: of the run; patience in seconds.
        machine: its number; None while no machine is free.
        began, ended: in hours; `ended` is when it stopped working, which the cluster may notice later.
        how: it ended: `done`, `gone` (with its machine), `held`, or `cancelled`.
        ready: whether the cluster knows how it ended.
    """

    name: str
    folder: Path
    splits: tuple[str, ...]
    patience: float
    machine: int | None = None
    began: float = math.inf
    works_from: float = math.inf
    ended: float | None = None
    how: str | None = None
    ready: bool = False
    _pieces: list[End] = field(default_factory=list)

    def __iter__(self) -> Iterator[End]:
        return self

    def __next__(self) -> End:
        if self.how == "gone":
            raise WorkerCrashedError
        if not self._pieces:
            raise StopIteration
        return self._pieces.pop()


@dataclass
class Machine:
    """With one place.

    Attributes:
        up: whether it works.
        seen: whether the cluster takes it to work.
        running: what it has been given.
    """

    up: bool = True
    seen: bool = True
    running: Try | None = None


class VirtualCluster:
    """What `RaySlots` uses of the `ray` module, and the clock.

    Args:
        machines: how many.
        hours: each run's, by its name, loading not counted.
        loading: hours that each try takes before it gets on.
        faults: what goes wrong.
        seed: of when.

    Attributes:
        now: hours since the beginning.
        tries: all there were, in the order in which they were given.
        deaths: of machines, so far.
    """

    def __init__(self, machines: int, hours: Mapping[str, float], loading: float, faults: Faults, seed: int):
        self.machines = [Machine() for _ in range(machines)]
        self.hours, self.loading, self.faults = hours, loading, faults
        self.now, self.tries, self.deaths = 0.0, list[Try](), 0
        self._chance = np.random.default_rng(seed)
        self._waiting: deque[Try] = deque()
        self._reached: dict[str, float] = {}
        self._locked: dict[str, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        for number in range(machines):
            self._plan_death(number)

    # ------------------------------------------------------------------ what RaySlots calls

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": machine.seen, "Resources": {"CPU": 1.0}} for machine in self.machines]

    def remote(self, function: object) -> VirtualCluster:
        return self

    def options(self, **_: Any) -> _Given:
        return _Given(self)

    def get(self, piece: End) -> End:
        return piece

    def wait(self, streams: Sequence[Try], num_returns: int, timeout: float) -> tuple[list[Try], list[Try]]:
        """As Ray's: until one has something to say, or the time is over. Idle time-outs pass all at once."""
        limit = timeout * SECOND
        until = self.now + limit
        while not (ready := [stream for stream in streams if stream.ready]):
            after = self._events[0][0]
            if after > until:
                self.now += limit * max(1, int((after - self.now) / limit))
                return [], list(streams)
            self._pass()
        return ready[:num_returns], [stream for stream in streams if stream is not ready[0]]

    def cancel(self, stream: Try, force: bool) -> None:
        if stream in self._waiting:
            self._waiting.remove(stream)
            stream.how = "cancelled"
        elif stream.how is None:
            self._stop(stream, "cancelled")
            self._leave(stream)

    # ------------------------------------------------------------------ what happens

    def take(self, text: str) -> Try:
        """Give a machine a run, or let the run wait for one."""
        told = json.loads(text)
        asked = Try(told["name"], Path(told["folder"]), tuple(told["splits"]), told["patience"])
        self.tries.append(asked)
        self._waiting.append(asked)
        self._assign()
        return asked

    def let_pass(self, hours: float) -> None:
        """Nobody asks for anything meanwhile."""
        until = self.now + hours
        while self._events and self._events[0][0] <= until:
            self._pass()
        self.now = until

    def _assign(self) -> None:
        for number, machine in enumerate(self.machines):
            if not self._waiting:
                return
            if machine.seen and machine.running is None:
                self._begin(self._waiting.popleft(), number)

    def _begin(self, given: Try, number: int) -> None:
        machine = self.machines[number]
        machine.running, given.machine, given.began = given, number, self.now
        if not machine.up:  # the cluster does not know yet
            given.ended, given.how = self.now, "gone"
            return
        unlocked, patience = self._locked.get(given.name, 0.0), given.patience * SECOND
        if unlocked > self.now + patience:
            self._at(self.now + patience, lambda: self._end(given, "held"))
            return
        given.works_from = max(self.now, unlocked) + self.loading
        left = self.hours[given.name] - self._reached.get(given.name, 0.0)
        self._at(given.works_from + left, lambda: self._end(given, "done"))

    def _end(self, given: Try, how: str) -> None:
        if given.how is not None:  # its machine died first
            return
        self._stop(given, how)
        if how == "done":
            given.folder.mkdir(parents=True)  # which raises where it was done before
            for file in ("done.json", *(f"scores-{split}.json" for split in given.splits)):
                (given.folder / file).write_text("{}", encoding="utf-8")
        given._pieces.append(End(None, f"a machine that hangs has {given.name}" if how == "held" else None, False))
        given.ready = True
        self._leave(given)

    def _stop(self, given: Try, how: str) -> None:
        given.ended, given.how = self.now, how
        if self.faults.saved is not None and self.now > given.works_from:
            reached = self._reached.get(given.name, 0.0) + self.now - given.works_from
            self._reached[given.name] = self.faults.saved * math.floor(reached / self.faults.saved)

    def _leave(self, given: Try) -> None:
        assert given.machine is not None
        self.machines[given.machine].running = None
        self._assign()

    def _plan_death(self, number: int) -> None:
        if math.isfinite(self.faults.between):
            self._at(self.now + self._chance.exponential(self.faults.between), lambda: self._die(number))

    def _die(self, number: int) -> None:
        machine = self.machines[number]
        machine.up = False
        self.deaths += 1
        noticed = self.now + self.faults.noticed
        back = noticed + self._chance.exponential(self.faults.away)
        silent = self._chance.random() < self.faults.silent
        if machine.running is not None:
            if silent and machine.running.works_from < math.inf:
                self._locked[machine.running.name] = back
            self._stop(machine.running, "gone")
        self._at(noticed, lambda: self._notice(number))
        self._at(back, lambda: self._return(number))

    def _notice(self, number: int) -> None:
        machine = self.machines[number]
        machine.seen = False
        if machine.running is not None:
            machine.running.ready = True
            machine.running = None

    def _return(self, number: int) -> None:
        self.machines[number].up = self.machines[number].seen = True
        self._plan_death(number)
        self._assign()

    def _at(self, hour: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (hour, next(self._count), what))

    def _pass(self) -> None:
        self.now, _, what = heapq.heappop(self._events)
        what()

    # ------------------------------------------------------------------ what must be so

    def check(self, nodes: Sequence[Node]) -> None:
        """Hold what happened against what is promised.

        Raises:
            AssertionError: a run was not done, or twice, began before what it needs was done, or was at work in two
                places at once; or a machine had two.
        """
        done = {one.name: one for one in self.tries if one.how == "done"}
        times = sorted(one.name for one in self.tries if one.how == "done")
        assert times == sorted(node.name for node in nodes), "each run is done once"
        for node in nodes:
            began = min(one.began for one in self.tries if one.name == node.name)
            ends = [done[need].ended or math.inf for need in node.needs]
            assert began >= max(ends, default=0.0), f"{node.name} began before what it needs was done"
        began_somewhere = [one for one in self.tries if one.machine is not None]
        for key in ("name", "machine"):
            for _, of_one in itertools.groupby(sorted(began_somewhere, key=lambda one: (getattr(one, key), one.began)),
                                               key=lambda one: getattr(one, key)):  # fmt: skip
                for before, after in itertools.pairwise(of_one):
                    assert (before.ended or 0.0) <= after.began, f"two tries at once: {before}, {after}"


@dataclass(frozen=True)
class _Given:
    cluster: VirtualCluster

    def remote(self, text: str, identity: str, shares: bool) -> Try:
        return self.cluster.take(text)
