"""One command at a time writes in a folder; its lock dies with it, and says whose it is."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.errors import RunError
from equipoise.locks import lock


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """The number of a process at work in `run`."""
    ready, says = os.pipe()
    child = os.fork()
    if child == 0:
        with lock(tmp_path / "run"):
            (tmp_path / "run" / "recipe.yaml").touch()
            os.write(says, b"has it")
            signal.pause()
        os._exit(0)
    assert os.read(ready, 6) == b"has it"
    yield child
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # a test has seen to it
    os.close(ready)
    os.close(says)


def test_the_second_is_told_who_has_it(holder: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    expected = f"another equipoise command is at work in {run}: process {holder} on {socket.gethostname()}"
    with pytest.raises(RunError) as refused, lock(run):
        pass
    assert str(refused.value) == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_owner(holder: int, tmp_path: Path, number: int) -> None:
    os.kill(holder, number)
    os.waitpid(holder, 0)
    with lock(tmp_path / "run"):
        named = (tmp_path / "run" / ".locks" / "command.owner").read_text(encoding="utf-8")
        assert named.startswith(f"process {os.getpid()} on ")
    with lock(tmp_path / "run"):  # given back
        pass


def test_only_the_first_of_several_processes_holds_it(
    holder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
