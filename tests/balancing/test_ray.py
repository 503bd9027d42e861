"""`equipoise balance` on a real Ray cluster of two machines (raylets of their own), one of which is killed midway."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from equipoise.balancing import on_ray
from equipoise.balancing.execution import Outcome, Work
from equipoise.balancing.on_ray import RaySlots
from equipoise.balancing.places import Where
from equipoise.balancing.run import Balancing, balance
from equipoise.errors import RunError
from equipoise.recipe import Recipe
from equipoise.stopping import Stopped, check, stoppable
from equipoise.training.run_directory import RunDirectory

#: So that a machine's death is seen in seconds.
QUICK = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head that runs nothing; each test adds its machines."""
    folder = tempfile.mkdtemp(prefix="eq-ray-")  # a short path: it holds sockets
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("EQUIPOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK})
        yield made
        made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def machines(cluster: Cluster) -> Iterator[list[Any]]:
    """Two machines with a CPU each."""
    added = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    yield added
    for machine in added:
        if machine in cluster.worker_nodes:
            cluster.remove_node(machine)


def silent() -> Console:
    return Console(file=io.StringIO(), width=400)


def folder_of(made: Balancing, name: str) -> Path:
    [found] = [path for path in made.nodes.iterdir() if path.name.rpartition("-")[0] == name]
    return found


def check_same(path: Path, undisturbed: Path) -> None:
    assert (path / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    left, expected = ({str(file.relative_to(one)) for file in one.rglob("*")} for one in (path, undisturbed))
    assert left == expected


def worker_of(machines: list[Any], task: str) -> tuple[Any, psutil.Process]:
    """The machine that runs a task and the process, a child of its raylet that Ray names after the task."""
    raylets = {machine.all_processes["raylet"][0].process.pid: machine for machine in machines}
    for process in psutil.process_iter(["ppid", "cmdline"]):
        if process.info["ppid"] in raylets and f"ray::{task}" in " ".join(process.info["cmdline"] or ()):
            return raylets[process.info["ppid"]], process
    raise AssertionError(f"no machine runs {task}")


def test_a_machine_killed_midway_changes_nothing(
    cluster: Cluster, machines: list[Any], recipe: Recipe, tmp_path: Path, finished: Balancing
):
    made = Balancing(tmp_path / "out")
    node = made.nodes / folder_of(finished, "colour+mini").name
    killed: list[Any] = []

    def kill() -> None:
        while len(RunDirectory(node).metrics()) < 7:  # of 20 steps
            time.sleep(0.01)
        machine, worker = worker_of(machines, "colour+mini")
        worker.suspend()  # or it would be done before its machine is gone
        cluster.remove_node(machine, allow_graceful=False)
        worker.kill()  # as a machine takes all of its processes with it
        killed.append(machine)

    killer = threading.Thread(target=kill)
    killer.start()
    console = silent()
    balance(recipe, made.path, console, where=Where(ray=cluster.address))
    killer.join()
    printed = console.file.getvalue()
    assert "colour+mini: its worker is gone (" in printed
    assert "again, 1 of 3" in printed
    assert len(cluster.worker_nodes) == 1
    assert (made.path / "balance.json").read_bytes() == (finished.path / "balance.json").read_bytes()
    for undisturbed in (folder_of(finished, name) for name in ("mini", "colour+mini", "name+mini", "cotbal")):
        check_same(made.nodes / undisturbed.name, undisturbed)
        assert "steps, from step" in (made.path / "logs" / f"{undisturbed.name}.log").read_text(encoding="utf-8")
    # Its second worker went on from the newest checkpoint of the first.
    log = (made.path / "logs" / f"{node.name}.log").read_text(encoding="utf-8")
    assert re.search(r"colour\+mini: 20 steps, from step (5|10|15)\n", log)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not ray.is_initialized()


def test_a_machine_that_shares_no_disk_sends_its_run(
    cluster: Cluster, machines: list[Any], tmp_path: Path, finished: Balancing
):
    made, undisturbed = Balancing(tmp_path / "out"), folder_of(finished, "mini")
    work = Work("mini", RunDirectory(undisturbed).recipe(), made.nodes / undisturbed.name, ("validation",))
    slots = RaySlots(cluster.address, made.path, 1, None, silent(), shares=False)
    try:
        assert slots.count == 2
        slots.start(work)
        while (outcome := slots.next()) is None:
            pass
        assert (outcome.work, outcome.death, outcome.error) == (work, None, None)
        check_same(work.folder, undisturbed)
        assert (work.folder / "scores.json").read_bytes() == (undisturbed / "scores.json").read_bytes()
        assert "mini: 5 steps" in work.log.read_text(encoding="utf-8")
        scratch = Path(os.environ["EQUIPOISE_CACHE"]) / "balance" / slots.identity / work.folder.name
        deadline = time.monotonic() + 20
        while scratch.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not scratch.exists()
    finally:
        slots.stop()
    assert {path.name for path in made.path.iterdir()} == {".id", "incoming", "logs", "nodes"}
    assert not list((made.path / "incoming").iterdir())


def test_a_node_that_fails_says_why_and_is_not_tried_again(
    cluster: Cluster, machines: list[Any], content: Callable[..., dict[str, Any]], recipe: Recipe, tmp_path: Path
):
    made = Balancing(tmp_path / "out")
    gone = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": str(tmp_path / "gone")})})
    work = Work("mini", gone, made.nodes / "mini-1", ("validation",))
    slots = RaySlots(cluster.address, made.path, 1, None, silent())
    try:
        slots.start(work)
        while (outcome := slots.next()) is None:
            pass
    finally:
        slots.stop()
    assert outcome.death is None
    assert isinstance(outcome.error, RunError)
    assert str(outcome.error).startswith("mini: ")
    assert "gone" in str(outcome.error)
    assert len(str(outcome.error).splitlines()) == 1


def test_a_node_that_fails_where_no_disk_is_shared_still_sends_its_log(
    cluster: Cluster, machines: list[Any], recipe: Recipe, tmp_path: Path
):
    (tmp_path / "empty").mkdir()
    broken = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": str(tmp_path / "empty")})})
    made = Balancing(tmp_path / "out")
    work = Work("mini", broken, made.nodes / "mini-1", ("validation",))
    slots = RaySlots(cluster.address, made.path, 1, None, silent(), shares=False)
    try:
        slots.start(work)
        while (outcome := slots.next()) is None:
            pass
    finally:
        slots.stop()
    assert outcome.death is None
    assert "cannot be loaded" in str(outcome.error)
    assert work.log.is_file()


def test_a_node_that_a_stopped_process_has_is_held(
    cluster: Cluster, machines: list[Any], owner, recipe: Recipe, tmp_path: Path
):
    made = Balancing(tmp_path / "out")
    work = Work("mini", recipe, made.nodes / "mini-1", ("validation",), patience=0.3)
    stopped = owner(made.path, "mini-1", 0.3)
    stopped.send_signal(signal.SIGSTOP)
    slots = RaySlots(cluster.address, made.path, 1, None, silent())
    try:
        slots.start(work)
        while (outcome := slots.next()) is None:
            pass
    finally:
        slots.stop()
    assert outcome.held is not None
    assert outcome == Outcome(work, held=outcome.held)
    assert outcome.held.startswith(f"process {stopped.pid} on ")
    assert not work.folder.exists()


def test_a_run_that_no_machine_can_hold_waits_and_says_so(cluster: Cluster, machines: list[Any], tmp_path: Path):
    console = silent()
    slots = RaySlots(cluster.address, tmp_path, 8, 2, console)
    slots.stop()
    assert console.file.getvalue() == ("no machine of the cluster has 8 CPUs and 2 GPUs for a run: waiting for one\n")


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)  # Python's handlers run between its instructions


def test_connected_and_waiting_it_hears_sigterm(
    cluster: Cluster, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(on_ray, "LOOK", 1.0)
    with pytest.raises(Stopped), stoppable():  # noqa: PT012
        slots = RaySlots(cluster.address, tmp_path, 1, None, silent())
        never = ray.remote(lambda: None).options(num_cpus=1).remote()  # no machine has a CPU
        slots._running[never] = Work("mini", recipe, tmp_path / "nodes" / "mini-1", ())
        asker = threading.Timer(0.3, ask)
        asker.start()
        try:
            assert slots.next() is None
            check()
        finally:
            asker.join()
            slots.stop()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_asked_to_stop_it_ends_its_workers_and_goes_on(
    cluster: Cluster, machines: list[Any], recipe: Recipe, tmp_path: Path, finished: Balancing
):
    made = Balancing(tmp_path / "out")
    node = made.nodes / folder_of(finished, "colour+mini").name
    at_work: list[psutil.Process] = []

    def ask_midway() -> None:
        while len(RunDirectory(node).metrics()) < 7:  # of 20 steps
            time.sleep(0.01)
        at_work.append(worker_of(machines, "colour+mini")[1])
        ask()

    asker = threading.Thread(target=ask_midway)
    asker.start()
    with pytest.raises(Stopped), stoppable():
        balance(recipe, made.path, silent(), ("stl", "ew"), where=Where(ray=cluster.address))
    asker.join()
    assert not ray.is_initialized()
    assert not RunDirectory(node).done
    _, alive = psutil.wait_procs(at_work, timeout=60)
    assert at_work
    assert not alive

    balance(recipe, made.path, silent(), ("stl", "ew"), where=Where(ray=cluster.address))
    for name in ("balance.json", "results.json"):
        assert (made.path / name).read_bytes() == (finished.path / name).read_bytes()
    for path in finished.nodes.iterdir():
        check_same(made.nodes / path.name, path)
    log = (made.path / "logs" / f"{node.name}.log").read_text(encoding="utf-8")
    assert re.search(r"colour\+mini: 20 steps, from step (5|10|15)\n", log)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://somewhere:10001", "run the command on a machine of the cluster"),
        ("nowhere", "--ray nowhere: "),
    ],
)
def test_an_address_that_is_none(address: str, message: str, tmp_path: Path):
    with pytest.raises(RunError) as caught:
        RaySlots(address, tmp_path, 1, None, silent())
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
