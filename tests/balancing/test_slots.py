"""`equipoise balance --slots 2`: nodes at once on this machine, a process each; killed ones, and a killed starter."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from rich.console import Console

from equipoise.balancing import processes
from equipoise.balancing.execution import Work
from equipoise.balancing.places import Where
from equipoise.balancing.processes import MODULE, Processes
from equipoise.balancing.run import Balancing, balance
from equipoise.locks import lock
from equipoise.recipe import Recipe
from equipoise.stopping import finishing, stoppable
from equipoise.training.run_directory import RunDirectory


@pytest.fixture
def start(content: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """The command in a process of its own, with results in `out`."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content()), encoding="utf-8")
    command = (sys.executable, "-m", "equipoise.cli", "balance", str(file), "--out", str(tmp_path / "out"))

    def begin(*options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "COLUMNS": "400"},
        )  # fmt: skip

    return begin


def folder_of(made: Balancing, finished: Balancing, name: str) -> Path:
    [found] = [path.name for path in finished.nodes.iterdir() if path.name.rpartition("-")[0] == name]
    return made.nodes / found


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what}: not in {seconds:g} s")


def workers(starter: subprocess.Popen[str]) -> list[psutil.Process]:
    """Those that live: one that has just ended may not have been waited for yet."""
    found = []
    for child in psutil.Process(starter.pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie is none either
            if MODULE in " ".join(child.cmdline()):
                found.append(child)
    return found


def at_work_on(starter: subprocess.Popen[str], folder: Path) -> psutil.Process:
    """The worker that has a node's log open."""
    log = folder.parent.parent / "logs" / f"{folder.name}.log"
    [found] = [each for each in workers(starter) if any(Path(file.path) == log for file in each.open_files())]
    return found


def test_a_killed_process_and_a_killed_starter_change_nothing(start, tmp_path: Path, finished: Balancing):
    made = Balancing(tmp_path / "out")
    node = folder_of(made, finished, "colour+mini")
    first = start("--slots", "2")
    wait_for(lambda: len(RunDirectory(node).metrics()) >= 6, "six steps")
    at_work_on(first, node).kill()
    other = folder_of(made, finished, "name+mini")
    wait_for(lambda: len(RunDirectory(other).metrics()) >= 2, "the second probe")
    orphans = workers(first)
    first.kill()
    printed = first.communicate()[0]
    assert "colour+mini: its process was ended by signal 9; again, 1 of 3" in printed
    assert orphans
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive

    second = start("--slots", "2")
    printed = second.communicate()[0]
    assert second.returncode == 0, printed
    assert (made.path / "balance.json").read_bytes() == (finished.path / "balance.json").read_bytes()
    for name in ("mini", "colour+mini", "name+mini", "cotbal"):
        path = folder_of(made, finished, name)
        undisturbed = finished.nodes / path.name
        assert (path / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
        assert (made.path / "logs" / f"{path.name}.log").stat().st_size
    log = (made.path / "logs" / f"{node.name}.log").read_text(encoding="utf-8")
    assert re.search(r"colour\+mini: 20 steps, from step (5|10|15)\n", log)


def test_processes_make_what_is_missing_of_a_comparison(recipe: Recipe, tmp_path: Path, finished: Balancing):
    made = Balancing(shutil.copytree(finished.path, tmp_path / "out"))
    lost = [folder_of(made, finished, name) for name in ("stl@colour", "ew")]
    for folder in lost:
        shutil.rmtree(folder)
    made.results_file.unlink()
    balance(recipe, made.path, Console(file=io.StringIO()), ("stl", "ew"), where=Where(slots=2))
    assert made.results_file.read_bytes() == finished.results_file.read_bytes()
    assert {log.stem for log in (made.path / "logs").iterdir()} == {folder.name for folder in lost}


def test_a_second_command_on_the_same_results_is_refused(command, content, tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content()), encoding="utf-8")
    out = tmp_path / "out"
    with lock(out):
        refused = command("balance", file, "--out", out)
    assert refused["status"] == 2
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert refused["printed"].endswith(f"equipoise: another equipoise command is at work in {out}: {holder}\n")
    assert not (out / "nodes").exists()


def test_a_mistake_is_one_line_and_a_failure_names_its_log(recipe: Recipe, tmp_path: Path):
    lost = recipe.tasks[0].model_copy(update={"path": tmp_path / "lost"})
    mistaken = recipe.model_copy(update={"tasks": [lost, *recipe.tasks[1:]]})
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / ".locks").touch()  # where a folder should be
    works = [
        Work("mistaken", mistaken, tmp_path / "nodes" / "mistaken-1", ("validation",)),
        Work("failing", recipe, blocked / "nodes" / "failing-1", ("validation",)),
    ]
    slots = Processes(2, devices=0)
    try:
        for work in works:
            assert slots.start(work) == "in a process of its own"
        errors = {outcome.work.name: str(outcome.error) for outcome in (slots.next(), slots.next())}
    finally:
        slots.stop()
    assert errors["mistaken"].startswith("mistaken: ")
    assert str(tmp_path / "lost") in errors["mistaken"]
    assert len(errors["mistaken"].splitlines()) == 1
    assert errors["failing"] == f"failing: it failed with status 1; see {works[1].log}"
    assert "Traceback" in works[1].log.read_text(encoding="utf-8")


def test_a_process_that_has_ended_need_not_be_told(recipe: Recipe, tmp_path: Path, monkeypatch):
    """As where a signal to the whole group has reached it first."""
    monkeypatch.setattr(processes, "MODULE", "this")  # prints, and ends
    slots = Processes(1, devices=0)
    work = Work("mini", recipe, tmp_path / "nodes" / "mini-1", ("validation",))
    with stoppable(), finishing():
        slots.start(work)
        [(_, process)] = slots._running.values()
        process.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        slots.stop()
    assert process.returncode == 0


def test_devices_are_handed_out_as_the_user_shows_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    slots = Processes(2, devices=3)
    assert slots._free == ["3", "5"]
    slots.stop()


def test_slots_and_a_cluster_exclude_each_other(command, tmp_path: Path, content):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content()), encoding="utf-8")
    refused = command("balance", file, "--out", tmp_path / "out", "--slots", "2", "--ray", "auto")
    assert refused["status"] == 2
    assert "equipoise: --slots is for this machine and --ray for a cluster; give one of them" in refused["printed"]
