"""The newest checkpoint damaged, file by file: it is passed over in a line, and the run ends as if it had not been."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from equipoise.training.run_directory import RunDirectory
from faults._commands import Command, Start, scratch
from faults._disk import conclude
from faults._kills import Tally

SUMS = "checksums.json"


def flip(file: Path, chance: random.Random) -> None:
    """One bit of it."""
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(bytes(content))


def truncate(file: Path, chance: random.Random) -> None:
    """What follows some byte of it."""
    with file.open("r+b") as opened:
        opened.truncate(chance.randrange(file.stat().st_size))


def delete(file: Path, _: random.Random) -> None:
    """All of it."""
    file.unlink()


HARMS: tuple[Callable[[Path, random.Random], None], ...] = (flip, truncate, delete)


def prepare(command: Command, start: Start, folder: Path, name: str = "checkpoint-9") -> tuple[Path, list[str]]:
    """A run killed once a checkpoint and the one before it are whole, and that checkpoint's files."""
    run = folder / "prepared"
    died = start(*command.line(run), kill=["os.mkdir", "checkpoint-10", 1])
    assert died["status"] == -signal.SIGKILL, died["printed"]
    checkpoint = RunDirectory(run).newest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.name == name
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size)
    return run, sorted(path.relative_to(checkpoint).as_posix() for path in files)


def corrupt(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """Each file in each way, or so many of these."""
    tally = Tally(command.name)
    with scratch(folder / "corrupted") as place:
        prepared, files = prepare(command, start, place)
        pairs = [
            (file, harm)
            for file in files
            for harm in HARMS
            if (prepared / "checkpoints/checkpoint-9" / file).stat().st_size
        ]
        for number, (file, harm) in enumerate(chance.sample(pairs, min(count, len(pairs)))):
            run = place / f"run-{number}"
            shutil.copytree(prepared, run)
            harm(run / "checkpoints/checkpoint-9" / file, chance)
            tally.signals += 1
            ended = start(*command.line(run, resume=True), environment={"COLUMNS": "400"})
            said = "checkpoint-9 is passed over: it" in ended["printed"]
            if said == (file == SUMS and harm is delete):  # without its sums it is one of an older version, and whole
                tally.faults.append(f"{harm.__name__} {file}: {ended['printed'][-1500:]}")
            conclude(tally, command, run, ended)
    return tally
