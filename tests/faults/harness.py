"""Disturbs `train`, `evaluate`, `balance` and `compare` in every way that a machine can, and lets them go on.

    python tests/faults/harness.py                          # everything, as docs/reliability.md quotes it
    python tests/faults/harness.py kill --count 200         # SIGKILL at random instants alone
    python tests/faults/harness.py full --commands train    # one kind, one command

| kind | what happens | what must follow |
| --- | --- | --- |
| `kill` | SIGKILL at a random instant of the command's life, up to six times a run | the same bytes in the end |
| `terminate` | SIGTERM likewise | status 0, and the command that goes on in a line; that is run: the same bytes |
| `slots` | SIGTERM with `--slots 2`, to the command alone | likewise, and a checkpoint of each run that was training |
| `full` | a tmpfs with room for some of what is written | status 2 and one line; with room, the same bytes |
| `closed` | a killed run's folder is read-only, or somebody else's | status 2 and one line; later the same bytes |
| `corrupt` | each file of the newest checkpoint flipped, cut, deleted | it is passed over in a line; the same bytes |
| `rank` | one of two processes is killed after some step | both end, with a status; the bytes of two undisturbed |

Each command runs as a fork of one process that has imported everything, on a tiny random model, on one thread. Instants
are of its processor time, so that a busy machine moves none. The same bytes: of every file that the run leaves, but
those that hold times. It ends with a table, and with status 1 where anything went otherwise.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _forked import forked_commands
from faults import _corruption, _disk, _kills, _ranks, _slots
from faults._commands import MOMENTS, Command, Start, commands
from faults._kills import Tally

Disturb = Callable[[Command, Start, Path, int, random.Random], Tally]
#: By kind: what does it, how often by default, and to which commands.
ALL = ("train", "evaluate", "balance", "compare")
KINDS: dict[str, tuple[Disturb, dict[str, int]]] = {
    "kill": (_kills.kill, {"train": 100, "evaluate": 50, "balance": 25, "compare": 25}),
    "terminate": (_kills.terminate, {"train": 30, "evaluate": 10, "balance": 20, "compare": 20}),
    "slots": (_slots.stop, {"balance": 4, "compare": 4}),
    "full": (_disk.fill, {"train": 20, "evaluate": 5, "balance": 10, "compare": 10}),
    "closed": (_disk.close, {"train": 8, "evaluate": 4, "balance": 4, "compare": 4}),
    "corrupt": (_corruption.corrupt, {"train": 1000}),
    "rank": (_ranks.lose, {"train": 10}),
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="by default all")
    parser.add_argument("--commands", default=",".join(ALL), help="by commas")
    parser.add_argument("--count", type=int, help="disturbances in all, shared out as the defaults are")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def shares(counts: dict[str, int], total: int | None) -> dict[str, int]:
    """So many in all, in the same proportions."""
    if total is None:
        return counts
    whole = sum(counts.values())
    return {name: max(1, round(count * total / whole)) for name, count in counts.items()}


def row(kind: str, tally: Tally, seconds: float) -> str:
    """One line of the table."""
    moments = (str(tally.moments[name] or "") for name in MOMENTS)
    cells = [kind, tally.command, tally.signals, tally.runs, tally.same, *moments, len(tally.faults), f"{seconds:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; returns the status."""
    options = parse(arguments)
    names = tuple(options.commands.split(","))
    faults: list[str] = []
    header = ["kind", "command", "disturbed", "runs", "same bytes", *MOMENTS, "faults", "seconds"]
    with tempfile.TemporaryDirectory() as temporary, forked_commands() as start:
        folder = Path(temporary)
        folder.chmod(0o755)  # others may read what they may not write
        made = {command.name: command for command in commands(folder, start, names)}
        for command in made.values():
            print(f"{command.name}: {command.life:.2f} s of processor time undisturbed", flush=True)
        print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}", flush=True)
        for kind in options.kinds or KINDS:
            disturb, counts = KINDS[kind]
            without = _disk.may_mount() if kind in ("full", "closed") else None
            if without is not None:
                print(f"{kind}: left out, {without}", flush=True)
                continue
            wanted = {name: count for name, count in counts.items() if name in made}
            for name, count in shares(wanted, options.count).items():
                began = time.monotonic()
                tally = disturb(made[name], start, folder, count, random.Random(f"{options.seed} {kind} {name}"))
                print(row(kind, tally, time.monotonic() - began), flush=True)
                faults += (f"{kind} {name}: {fault}" for fault in tally.faults)
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
