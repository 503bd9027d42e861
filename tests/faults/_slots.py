"""SIGTERM to a command whose runs are processes of their own: it must have them stop, each with what it came to."""

from __future__ import annotations

import random
import shlex
import signal
import time
from pathlib import Path

from faults._commands import Command, Start, differences, moment, scratch, steps_below
from faults._kills import GOES_ON, Tally, stopped

#: After so many signals a run is let go on to its end.
SERIES = 2
SLOTS = ("--slots", "2")


def stop(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """SIGTERM to the command alone, once its runs have made so many steps; the command that it says goes on with it.

    Of each run the first comes while the processes load. The others must find a run with a checkpoint of its last step.
    """
    tally = Tally(command.name)
    whole = sum(content.count(b"\n") for name, content in (command.undisturbed or {}).items() if "metrics" in name)
    while tally.signals < count:
        with scratch(folder / f"{command.name}-slots-{tally.runs}") as place:
            run, tally.runs = place / "run", tally.runs + 1
            line = (*command.line(run), *SLOTS)
            options = {"environment": {"EQUIPOISE_INDEX": str(place / "index"), "COLUMNS": "400"}}
            for number in range(min(SERIES, count - tally.signals)):
                began, made = time.time(), steps_below(run)
                steps = chance.randint(made + 1, max(made + 1, whole - 3)) if number else 0
                ended = start(*line, signal_after=[str(run), steps, signal.SIGTERM], **options)
                said = GOES_ON.search(ended["printed"])
                if said is None:
                    break
                tally.signals += 1
                tally.moments[stopped(run, moment(run, began))] += 1
                line = tuple(shlex.split(said[1]))
                if ended["status"] != 0 or "Traceback" in ended["printed"] or _traceback_in_a_log(run):
                    tally.faults.append(f"run {tally.runs}, start {number}: {ended['printed'][-2000:]}")
            else:
                ended = start(*line, **options)
            differing = [name for name in differences(command, run) if not name.startswith("logs/")]
            if ended["status"] != 0 or differing:
                tally.faults.append(f"run {tally.runs}: {', '.join(differing)}; {ended['printed'][-2000:]}")
            else:
                tally.same += 1
    return tally


def _traceback_in_a_log(run: Path) -> bool:
    return any("Traceback" in log.read_text(encoding="utf-8") for log in run.glob("logs/*.log"))
