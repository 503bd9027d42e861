"""Locks that die with their owner, in a folder of their own (`.locks`) below what they guard.

Beside each lies a file that names its owner. A node's owner also shows that it is at work, by a beat: it writes that
file anew all the time. An owner that was stopped (a halted machine, SIGSTOP) keeps its lock and has no beat.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from equipoise.errors import RunError

LOCKS = ".locks"
#: The lock of whoever writes in a folder; a folder has others too, of its nodes.
COMMAND = "command"
#: Seconds without a beat after which a node's owner is taken for stopped; long beside a slow disk or a busy machine.
PATIENCE = 60.0
#: Beats in that time.
BEATS = 12


class Held(RunError):
    """A node's lock has an owner that shows no life."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Be the one command that writes in a folder. Where processes do so together, the first one holds it for all.

    A folder that is not there is made for it, and is gone afterwards if nothing was put in it.

    Raises:
        RunError: another process has it; names which.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    held = _lock(folder, COMMAND)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise RunError(f"another equipoise command is at work in {folder}: {_owner(_read(_beside(held)))}") from None
    try:
        _write(_beside(held), 0)
        yield
    finally:
        with suppress(OSError):  # the folder may have been deleted, or may no longer be written
            _beside(held).unlink(missing_ok=True)
            if made and os.listdir(folder) == [LOCKS]:
                # Before the lock is released: who waits for it sees that its file is gone, and makes another.
                shutil.rmtree(folder / LOCKS)
        held.release()
        for path in made:
            with suppress(OSError):  # something is in it
                path.rmdir()


@contextmanager
def turn(root: Path, name: str, patience: float, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold a node's lock; wait for an owner that is at work, for what it does is what the caller was about to do.

    An owner without a beat is not waited for, and its lock is not taken from it either: it may wake up at any time and
    write on, and two writers would spoil the run directory.

    Args:
        root: of all results.
        name: of the lock.
        patience: seconds without a beat, seen by this process's own clock, after which an owner counts as stopped.
        notify: told once whom this waits for.

    Raises:
        Held: its owner shows no life.
    """
    held = _lock(root, name)
    beat = _beside(held)
    seen, since, told = None, time.monotonic(), False
    while True:
        try:
            held.acquire(timeout=patience / BEATS)
            break
        except Timeout:
            found = _read(beat)
        if found != seen and seen is not None and not told:
            notify(f"waits for {_owner(found)}, which is at work on it")
            told = True
        if found != seen:
            seen, since = found, time.monotonic()
        elif time.monotonic() - since >= patience:
            raise Held(
                f"{_owner(found)} holds {held.lock_file} and has shown no life for {patience:g} s: "
                "end it, or let it go on"
            )
    _write(beat, 0)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(beat, patience / BEATS, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        beat.unlink(missing_ok=True)
        held.release()


def _lock(root: Path, name: str) -> FileLock:
    folder = root / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / name)


def _beside(held: FileLock) -> Path:
    """The file that names the owner."""
    return Path(f"{held.lock_file}.owner")


def _beat(file: Path, seconds: float, ended: threading.Event) -> None:
    count = 0
    while not ended.wait(seconds):
        count += 1
        _write(file, count)


def _write(file: Path, count: int) -> None:
    # Whole or not at all, for its writer may be stopped here and must still be named.
    scratch = file.with_name(f"{file.name}~")
    with suppress(OSError):  # a full disk ends the run, not its beat
        scratch.write_text(f"process {os.getpid()} on {socket.gethostname()}\n{count}\n", encoding="utf-8")
        scratch.replace(file)


def _read(file: Path) -> str:
    # Its content and not its time: a network's disk may show an old time until the file is opened, and clocks differ.
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def _owner(text: str) -> str:
    return text.partition("\n")[0] or "another process"
