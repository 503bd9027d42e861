"""A disk that is full, or that may not be written: one line, status 2, and the way on once it is mended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults._commands import Command, Start, differences, scratch
from faults._kills import Tally

ENOUGH = 256 * 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")  # what a tmpfs gives a file at a time
NOBODY = 65534


def may_mount() -> str | None:
    """Why no file system can be mounted here; None where one can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True)
        if tried.returncode != 0:
            return tried.stderr.strip()
        subprocess.run(["umount", folder], check=True)
    return None


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A tmpfs with room enough."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ENOUGH}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def used(folder: Path) -> int:
    """Bytes of a disk that are not free."""
    state = os.statvfs(folder)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def resize(folder: Path, size: int) -> None:
    """Make a disk so many bytes large; of 0, a tmpfs would have no bound."""
    subprocess.run(["mount", "-o", f"remount,size={max(size, PAGE)}", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that root may not write either."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def appetite(command: Command, start: Start, folder: Path, shared: bool) -> int:
    """The most bytes that a command takes on a disk at once, beyond what it begins with."""
    with disk(folder / f"{command.name}-sizing") as place:
        run, ended = command.fresh(place / "run"), threading.Event()
        before = most = used(place)

        def look() -> None:
            nonlocal most
            while not ended.wait(0.002):
                most = max(most, used(place))

        looking = threading.Thread(target=look)
        looking.start()
        with _index(place if shared else folder) as environment:
            done = start(*command.line(run), environment=environment)
        ended.set()
        looking.join()
    assert done["status"] == 0, done["printed"]
    return most - before


def fill(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """Disks that have room for some of what a command writes, until so many were too small; then they get more, and the
    command is started again. Every other one holds the index of the data too.
    """
    tally = Tally(command.name)
    needs = {shared: appetite(command, start, folder, shared) for shared in (False, True)}
    tries = 0
    while tally.signals < count and tries < 4 * count:
        tries += 1
        shared = tries % 2 == 0
        with (
            disk(folder / f"{command.name}-full") as place,
            _index(place if shared else folder) as environment,
        ):
            run = command.fresh(place / "run")
            resize(place, used(place) + chance.randrange(0, needs[shared], PAGE))
            ended = start(*command.line(run), environment=environment)
            if ended["status"] == 0:
                continue
            tally.signals += 1
            _expect_line(tally, ended, "No space left on device")
            resize(place, ENOUGH)
            conclude(tally, command, run, start(*command.line(run, resume=True), environment=environment))
    return tally


@contextmanager
def _index(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a command whose data have not been read before, with their index below a folder."""
    place = folder / "index"
    try:
        yield {"EQUIPOISE_INDEX": str(place), "COLUMNS": "400"}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def close(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """Runs that were killed somewhere, whose folder may then not be written: by anybody, or by this user."""
    tally = Tally(command.name)
    for number in range(count):
        with scratch(folder / f"{command.name}-closed-{number}") as place:
            run = command.fresh(place / "run")
            run.mkdir(exist_ok=True)
            environment = {"EQUIPOISE_INDEX": str(place / "index"), "COLUMNS": "400"}
            ended = start(
                *command.line(run),
                environment=environment,
                signal=[chance.uniform(0, 0.9 * command.life), signal.SIGKILL],
            )
            if ended["status"] == 0:
                continue
            tally.signals += 1
            if number % 2 == 0:
                with read_only(run):
                    ended = start(*command.line(run, resume=True), environment=environment)
                _expect_line(tally, ended, "Read-only file system")
            else:
                other = {**environment, "EQUIPOISE_INDEX": str(place / "others")}
                (place / "others").mkdir()
                (place / "others").chmod(0o777)
                ended = start(*command.line(run, resume=True), environment=other, user=NOBODY)
                _expect_line(tally, ended, "Permission denied")
            conclude(tally, command, run, start(*command.line(run, resume=True), environment=environment))
    return tally


def _expect_line(tally: Tally, ended: dict[str, object], words: str) -> None:
    printed = str(ended["printed"])
    lines = printed.strip().splitlines()
    if ended["status"] != 2 or not lines or not lines[-1].startswith("equipoise: ") or words not in lines[-1]:
        tally.faults.append(f"status {ended['status']}, and no line of {words!r}: {printed[-1500:]}")
    elif "Traceback" in printed:
        tally.faults.append(f"a traceback: {printed[-1500:]}")


def conclude(tally: Tally, command: Command, run: Path, ended: dict[str, object]) -> None:
    """Take what a run left at its end."""
    tally.runs += 1
    if ended["status"] != 0:
        tally.faults.append(f"does not go on: status {ended['status']}, {str(ended['printed'])[-1500:]}")
    elif differing := differences(command, run):
        tally.faults.append(f"not as undisturbed: {', '.join(differing)}")
    else:
        tally.same += 1
