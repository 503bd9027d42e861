"""Signals at random instants of a command's life, several to a run; what is left must be as if there had been none."""

from __future__ import annotations

import random
import re
import shlex
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults._commands import Command, Start, differences, moment, scratch

#: After so many signals a run is let go on to its end.
SERIES = 6
GOES_ON = re.compile(r"^equipoise: stopped.*; it goes on with: equipoise (.+)$", re.MULTILINE)


@dataclass
class Tally:
    """What became of one command's runs.

    Attributes:
        command: its name.
        signals: that reached a process.
        runs: that were disturbed, and then ended.
        same: of these, those that left what an undisturbed one leaves.
        moments: signals by what the process was at.
        faults: what went otherwise than it must, a line each.
    """

    command: str
    signals: int = 0
    runs: int = 0
    same: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def kill(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """SIGKILL, until so many have found a process alive."""
    tally = Tally(command.name)
    while tally.signals < count:
        with scratch(folder / f"{command.name}-{tally.runs}") as place:
            run = command.fresh(place / "run")
            for number in range(min(SERIES, count - tally.signals)):
                began = time.time()
                options = {"environment": {"EQUIPOISE_INDEX": str(place / "index")}}
                ended = start(
                    *command.line(run, resume=number > 0),
                    signal=[chance.uniform(0, command.life), signal.SIGKILL], **options,
                )  # fmt: skip
                if ended["status"] != -signal.SIGKILL:
                    if ended["status"] != 0:
                        tally.faults.append(f"run {tally.runs}, start {number}: {ended['printed'][-2000:]}")
                    break
                tally.signals += 1
                tally.moments[moment(run, began)] += 1
            else:
                ended = start(*command.line(run, resume=True), **options)
            _conclude(tally, command, run, ended)
    return tally


def terminate(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """SIGTERM, until so many have found a process at work; each must end with status 0 and the command that goes on."""
    tally = Tally(command.name)
    while tally.signals < count:
        with scratch(folder / f"{command.name}-{tally.runs}") as place:
            run = command.fresh(place / "run")
            line = command.line(run)
            options = {"environment": {"EQUIPOISE_INDEX": str(place / "index"), "COLUMNS": "400"}}
            for number in range(min(SERIES, count - tally.signals)):
                began = time.time()
                ended = start(*line, signal=[chance.uniform(0, command.life), signal.SIGTERM], **options)
                said = GOES_ON.search(ended["printed"])
                if ended["status"] == -signal.SIGTERM:  # it came before the command had begun
                    tally.signals += 1
                    tally.moments["loading"] += 1
                    line = command.line(run, resume=True)
                    continue
                if said is None:
                    break
                tally.signals += 1
                line = tuple(shlex.split(said[1]))
                tally.moments[stopped(run, moment(run, began))] += 1
                if ended["status"] != 0 or "Traceback" in ended["printed"]:
                    tally.faults.append(f"run {tally.runs}, start {number}: {ended['printed'][-2000:]}")
            else:
                ended = start(*line, **options)
            _conclude(tally, command, run, ended)
    return tally


def stopped(run: Path, otherwise: str) -> str:
    """A run that says it was stopped was stepping, and has a checkpoint of the step."""
    return "stepping" if list(run.glob("**/stopped.json")) else otherwise


def _conclude(tally: Tally, command: Command, run: Path, ended: dict[str, object]) -> None:
    number, tally.runs = tally.runs, tally.runs + 1
    if ended["status"] != 0:
        tally.faults.append(f"run {number} does not end: status {ended['status']}, {str(ended['printed'])[-2000:]}")
        return
    differing = differences(command, run)
    if differing:
        tally.faults.append(f"run {number}: not as undisturbed: {', '.join(differing)}")
    else:
        tally.same += 1
