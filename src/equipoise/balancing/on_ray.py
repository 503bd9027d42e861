"""Nodes as tasks of a Ray cluster, each with CPUs and GPUs of its own.

A worker that sees the folder of all results works in it, and one that takes over from a dead one goes on from its
newest checkpoint. Where the machines share no disk, a node's run directory and log are sent when it ends. Data and
model must be at the same paths on every machine, and equipoise installed there.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console

from equipoise.balancing.execution import Outcome, Work
from equipoise.balancing.remote import IDENTITY, Piece, run_node_here
from equipoise.errors import RunError
from equipoise.stopping import finishing, kept
from equipoise.training.run_directory import write_atomically

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError:
    raise RunError("--ray needs Ray: pip install 'equipoise[ray]'") from None

#: Seconds until `next` looks again for machines that have joined.
LOOK = 5.0


class RaySlots:
    """The places of a cluster.

    Args:
        address: `auto`, or HOST:PORT of the cluster's head; this machine must belong to the cluster.
        folder: of all results.
        cpus, gpus: of each node; `gpus` None: 1 where the cluster has any.
        console: for what the user must know.
        shares: whether workers that see the folder of all results work in it.

    Raises:
        RunError: there is no such cluster.
    """

    def __init__(
        self, address: str, folder: Path, cpus: float, gpus: float | None, console: Console, shares: bool = True
    ):
        if address.startswith("ray://"):
            raise RunError(
                f"--ray: found {address}; run the command on a machine of the cluster (or as a job of it: "
                "ray job submit) and give auto, or HOST:PORT of its head"
            )
        self._connected = not ray.is_initialized()
        if self._connected:
            try:
                with kept():  # Ray's own handler ends the process with a status that is not 0
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, RuntimeError, ValueError) as error:
                raise RunError(f"--ray {address}: {' '.join(str(error).split())}") from None
        self.folder, self.shares, self.cpus = folder, shares, cpus
        self.gpus = gpus if gpus is not None else float(bool(ray.cluster_resources().get("GPU")))
        self.identity = _identify(folder)
        self._running: dict[Any, Work] = {}
        shutil.rmtree(self._incoming, ignore_errors=True)
        if not self._places():
            console.print(
                f"no machine of the cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs for a run: waiting for one",
                highlight=False,
            )

    @property
    def count(self) -> int:
        """How many runs the cluster can hold now; one more waits for a machine where it can hold none."""
        with finishing():
            return max(1, self._places())

    def start(self, work: Work) -> str | None:
        task: Any = ray.remote(run_node_here)
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0, "name": work.name}
        # One piece at a time: after the last the worker knows that all the others have arrived.
        streamed = task.options(**options, num_returns="streaming", _generator_backpressure_num_objects=1)
        self._running[streamed.remote(work.to_json(), self.identity, self.shares)] = work
        return "on the cluster"

    def next(self) -> Outcome | None:
        with finishing():  # Ray's own code makes a SystemError of whatever a signal raises in it
            return self._next()

    def _next(self) -> Outcome | None:
        while True:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=LOOK)
            if not ready:
                return None
            stream: Any = ready[0]  # a generator, which its annotation does not know
            work = self._running[stream]
            try:
                piece: Any = ray.get(next(stream))
            except RayTaskError as error:  # before it could take the work: no equipoise there, or another version
                return self._ended(stream, error=RunError(f"{work.name}: {str(error).strip().splitlines()[-1]}"))
            except (RayError, StopIteration) as error:
                shutil.rmtree(self._incoming / work.folder.name, ignore_errors=True)
                return self._ended(stream, death=f"its worker is gone ({type(error).__name__})")
            if isinstance(piece, Piece):
                self._keep(work, piece)
                continue
            if piece.sent:
                self._place(work)
            next(stream, None)  # lets the worker go on to its end
            failed = RunError(f"{work.name}: {piece.failure}; {work.log}") if piece.failure is not None else None
            return self._ended(stream, error=failed, held=piece.held)

    def stop(self) -> None:
        for stream in self._running:
            ray.cancel(stream, force=True)
        if self._connected:
            ray.shutdown()

    @property
    def _incoming(self) -> Path:
        """Where files are gathered until all of a node's have arrived."""
        return self.folder / "incoming"

    def _places(self) -> int:
        return sum(self._fit(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def _fit(self, resources: dict[str, float]) -> int:
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return int(min(resources.get(kind, 0.0) // each for kind, each in wanted.items() if each))

    def _ended(self, stream: Any, **how: Any) -> Outcome:
        return Outcome(self._running.pop(stream), **how)

    def _keep(self, work: Work, piece: Piece) -> None:
        file = self._incoming / work.folder.name / piece.path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            opened.write(piece.content)

    def _place(self, work: Work) -> None:
        """Move what arrived to where it belongs: the run directory whole, the log behind what it has already."""
        arrived = self._incoming / work.folder.name
        ran = arrived / "nodes" / work.folder.name
        work.log.parent.mkdir(parents=True, exist_ok=True)
        with work.log.open("ab") as log:
            log.write((arrived / "logs" / work.log.name).read_bytes())
        if ran.is_dir():  # a node that failed early has none
            shutil.rmtree(work.folder, ignore_errors=True)
            work.folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(ran, work.folder)
        shutil.rmtree(arrived)


def _identify(folder: Path) -> str:
    """The folder's identity, made once."""
    file = folder / IDENTITY
    if not file.is_file():
        write_atomically(file, uuid.uuid4().hex)
    return file.read_text(encoding="utf-8")
