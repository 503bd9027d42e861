"""A disk that is full, or that may not be written: one line, status 2, and the way on once it is mended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults._commands import Command, Start, differences, scratch
from faults._kills import Tally

ENOUGH = "256m"
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
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A tmpfs of so many bytes."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that root may not write either."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def size_of(folder: Path) -> int:
    """Bytes in files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fill(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """Disks of random sizes, until so many were too small; each then gets room, and the command is started again."""
    tally = Tally(command.name)
    with scratch(folder / "sizing") as place:
        run = command.fresh(place / "run")
        least = size_of(run)
        start(*command.line(run))
        need = 3 * size_of(run) // 2 - least
    tries = 0
    while tally.signals < count and tries < 4 * count:
        tries += 1
        with small_disk(folder / f"{command.name}-full", 2 * least + 65536 + chance.randrange(need)) as disk:
            run = command.fresh(disk / "run")
            index = {"EQUIPOISE_INDEX": str(folder / f"{command.name}-full-index-{tries}"), "COLUMNS": "400"}
            ended = start(*command.line(run), environment=index)
            shutil.rmtree(index["EQUIPOISE_INDEX"], ignore_errors=True)
            if ended["status"] == 0:
                continue
            tally.signals += 1
            _expect_line(tally, ended, "No space left on device")
            subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", str(disk)], check=True)
            conclude(tally, command, run, start(*command.line(run, resume=True), environment=index))
            shutil.rmtree(index["EQUIPOISE_INDEX"], ignore_errors=True)
    return tally


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
