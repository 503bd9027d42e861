"""One command at a time writes in a folder; its lock dies with it, and says whose it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.errors import RunError
from equipoise.locks import lock

HOLDS = """
import signal, sys
sys.argv[0] = "equipoise"  # as in the command, which imports no models yet
from pathlib import Path
from equipoise.locks import lock
run = Path(sys.argv[1])
with lock(run):
    (run / "recipe.yaml").touch()
    print("has it", flush=True)
    signal.pause()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process at work in `run`; not a fork of this one, in which others' threads may hold whatever locks."""
    child = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "has it\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_the_second_is_told_who_has_it(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    expected = f"another equipoise command is at work in {run}: process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(RunError) as refused, lock(run):
        pass
    assert str(refused.value) == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_owner(holder: subprocess.Popen[str], tmp_path: Path, number: int) -> None:
    holder.send_signal(number)
    holder.wait()
    with lock(tmp_path / "run"):
        named = (tmp_path / "run" / ".locks" / "command.owner").read_text(encoding="utf-8")
        assert named.startswith(f"process {os.getpid()} on ")
    with lock(tmp_path / "run"):  # given back
        pass


def test_only_the_first_of_several_processes_holds_it(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with lock(tmp_path / "run"):
        pass


def test_a_folder_that_nothing_was_put_in_is_gone_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="before"), lock(tmp_path / "runs" / "run"):
        raise ValueError("before anything was written")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with lock(tmp_path / "mine"):
        pass
    with lock(tmp_path / "runs" / "run"):
        (tmp_path / "runs" / "run" / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "runs"]
    assert (tmp_path / "runs" / "run" / "file").is_file()
