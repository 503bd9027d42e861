"""A node whose lock somebody has: who is at work is waited for, who is stopped (SIGSTOP) counts as a failed try."""

from __future__ import annotations

import io
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from rich.console import Console

from equipoise.balancing.execution import RETRIES, Here, Outcome, Work, carry_out
from equipoise.balancing.processes import Processes
from equipoise.balancing.remote import End, run_node_here
from equipoise.balancing.run import Balancing
from equipoise.errors import RunError
from equipoise.locks import Held, turn
from equipoise.recipe import Recipe
from equipoise.tasks.plan import Node
from equipoise.training.run_directory import RunDirectory


def silent() -> Console:
    return Console(file=io.StringIO(), width=400)


def mini(finished: Balancing, root: Path, patience: float) -> Work:
    """The smallest node of the plan, to be run below `root`."""
    [undisturbed] = [path for path in finished.nodes.iterdir() if path.name.rpartition("-")[0] == "mini"]
    recipe = RunDirectory(undisturbed).recipe()
    return Work("mini", recipe, root / "nodes" / undisturbed.name, ("validation",), patience)


def test_who_is_at_work_is_waited_for(owner, tmp_path: Path):
    at_work = owner(tmp_path, "node", 2.0)
    notes: list[str] = []
    got = threading.Event()

    def wait() -> None:
        with turn(tmp_path, "node", 2.0, notes.append):
            got.set()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    assert not got.wait(5)  # longer than its patience
    at_work.communicate()
    assert got.wait(20)
    waiting.join()
    [note] = notes
    assert note.startswith(f"waits for process {at_work.pid} on ")
    assert [path.name for path in (tmp_path / ".locks").iterdir() if path.name.endswith(".owner")] == []


def test_who_is_stopped_is_not_waited_for_and_loses_nothing(owner, tmp_path: Path):
    stopped = owner(tmp_path, "node", 0.5)
    stopped.send_signal(signal.SIGSTOP)
    refused = rf"^process {stopped.pid} on \S+ holds {tmp_path}/.locks/node and has shown no life for 0.5 s: end it, "
    with pytest.raises(Held, match=refused), turn(tmp_path, "node", 0.5, print):
        pass
    stopped.send_signal(signal.SIGCONT)
    with pytest.raises(Timeout), FileLock(tmp_path / ".locks" / "node", timeout=0):
        pass


def test_who_dies_while_stopped_gives_its_lock_back(owner, tmp_path: Path):
    stopped = owner(tmp_path, "node", 0.5)
    stopped.send_signal(signal.SIGSTOP)
    stopped.kill()
    stopped.wait()
    began = time.monotonic()
    with turn(tmp_path, "node", 60.0, print):
        assert time.monotonic() - began < 30


def test_a_held_node_is_tried_again_after_what_else_can_run(owner, tmp_path: Path, finished: Balancing):
    work = mini(finished, tmp_path, 0.3)
    undisturbed = finished.nodes / work.folder.name
    stopped = owner(tmp_path, work.folder.name, 0.3)
    stopped.send_signal(signal.SIGSTOP)
    prepared: list[str] = []
    concluded: list[str] = []

    def prepare(node: Node) -> Work:
        prepared.append(node.name)
        if node.name == "mini":
            return work
        stopped.kill()
        stopped.wait()
        shutil.copytree(undisturbed, tmp_path / "nodes" / "other")
        return Work("other", work.recipe, tmp_path / "nodes" / "other", ("validation",))

    nodes = [Node(name, work.recipe, ("validation",), 0.1) for name in ("mini", "other")]
    console = silent()
    carry_out(nodes, Here(console), prepare, lambda node, _: concluded.append(node.name), console)
    assert prepared == ["mini", "other"]
    assert concluded == ["other", "mini"]
    assert f"mini: process {stopped.pid} on " in console.file.getvalue()
    assert "end it, or let it go on; again, 1 of 3" in console.file.getvalue()
    assert (work.folder / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()


def test_a_node_that_is_held_for_ever_ends_it(owner, tmp_path: Path, finished: Balancing):
    work = mini(finished, tmp_path, 0.1)
    stopped = owner(tmp_path, work.folder.name, 0.1)
    stopped.send_signal(signal.SIGSTOP)
    console = silent()
    ended = rf"^mini: given up after {RETRIES + 1} tries, at last: process {stopped.pid} on "
    with pytest.raises(RunError, match=ended):
        carry_out(
            [Node("mini", work.recipe, ("validation",), 0.1)], Here(console), lambda _: work, lambda *_: None, console
        )
    assert console.file.getvalue().count("; again, ") == RETRIES
    assert not work.folder.exists()


def test_a_process_of_its_own_says_that_its_node_is_held(owner, tmp_path: Path, finished: Balancing):
    work = mini(finished, tmp_path, 0.3)
    stopped = owner(tmp_path, work.folder.name, 0.3)
    stopped.send_signal(signal.SIGSTOP)
    slots = Processes(1, devices=0)
    try:
        slots.start(work)
        outcome = slots.next()
    finally:
        slots.stop()
    assert outcome.held is not None
    assert outcome == Outcome(work, held=outcome.held)
    assert outcome.held.startswith(f"process {stopped.pid} on ")
    assert outcome.held.endswith("has shown no life for 0.3 s: end it, or let it go on")


def test_a_machine_that_shares_no_disk_sends_nothing_of_a_node_that_is_held(
    owner, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("equipoise.balancing.remote.quieten", lambda: None)
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    work = Work("mini", recipe, tmp_path / "elsewhere" / "nodes" / "mini-1", ("validation",), 0.3)
    scratch = tmp_path / "cache" / "balance" / "identity" / work.folder.name
    stopped = owner(scratch, work.folder.name, 0.3)
    stopped.send_signal(signal.SIGSTOP)
    [end] = run_node_here(work.to_json(), "identity")
    assert isinstance(end, End)
    assert end.held is not None
    assert end.held.startswith(f"process {stopped.pid} on ")
    assert end == End(failure=None, held=end.held, sent=False)
    assert scratch.is_dir()  # what the stopped process has is left to it
