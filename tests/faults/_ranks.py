"""One of two processes that train together is lost at some step: both end, nobody hangs, and `--resume` goes on."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from faults._commands import Command, Start, results, scratch
from faults._kills import Tally

PROCESSES = 2


def lose(command: Command, start: Start, folder: Path, count: int, chance: random.Random) -> Tally:
    """SIGKILL to the first or the second of them; its launcher sees to the other, as torchrun does."""
    tally = Tally(command.name)
    with scratch(folder / "ranks") as place:
        whole = place / "whole"
        done = start(*command.line(whole), processes=PROCESSES)
        assert done["statuses"] == [0] * PROCESSES, done["printed"]
        expected = results(whole)
        steps = len({line for line in (whole / "timings.jsonl").read_text(encoding="utf-8").splitlines() if line})
        for number in range(count):
            run, lost, step = place / f"run-{number}", chance.randrange(PROCESSES), chance.randrange(1, steps)
            died = start(*command.line(run), processes=PROCESSES, dies=[lost, step])
            tally.signals += 1
            tally.moments["stepping"] += 1
            tally.runs += 1
            if died["statuses"][lost] != -signal.SIGKILL or 0 in died["statuses"]:
                tally.faults.append(f"process {lost} lost after step {step}: statuses {died['statuses']}")
            done = start(*command.line(run, resume=True), processes=PROCESSES)
            if any(done["statuses"]):
                printed = "\n".join(done["printed"])
                tally.faults.append(f"does not go on after step {step}: {done['statuses']}, {printed[-1500:]}")
            elif results(run) == expected:
                tally.same += 1
            else:
                tally.faults.append(f"process {lost} lost after step {step}: not as undisturbed")
    return tally
