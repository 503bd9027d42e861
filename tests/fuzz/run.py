"""Fuzzes every way by which somebody else's content gets in, and prints what became of the cases.

    python tests/fuzz/run.py --cases 100000             # the figures of docs/reliability.md; half an hour on one core
    python tests/fuzz/run.py --cases 2000 --only recipe # what has "recipe" in its name
    python tests/fuzz/run.py --out FOLDER --workers 4   # in four processes; the same command goes on where it stopped

A case is made by Hypothesis: a file in its right form with bytes or values spoiled, or one of the hostile ones that are
listed in tests/fuzz. The product is called as the commands call it. A case ends in one of these ways:

| | |
| --- | --- |
| refused | an EquipoiseError whose message is a line that can be read and, for files, names the file |
| accepted | it is used, and what is shown of it is shown as text |
| traceback | anything else was raised, or a check of the surface failed: a finding |
| hang | it took more than 20 seconds of its process, or that had to be killed: a finding |

Cases run in processes of their own, which may take 2.5 GB on top of what they import. The same seed makes the same
cases. The status is 1 where there is a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fuzz._surface import Outcome, Surface  # noqa: E402
from fuzz._surfaces import SURFACES  # noqa: E402

CHUNK = 20_000  # cases of one process
SILENCE = 240.0  # seconds without a finished case after which a process is killed: it waits, or computes in C
PAUSE = 0.2  # seconds between two looks at a process
FEW = 50  # cases of a surface at the least


@dataclass
class Row(Outcome):
    """A line of the table."""

    surface: str = ""
    peak: int = 0
    over: int = 0

    def add(self, told: dict[str, Any]) -> None:
        """Count what a process told."""
        for name in ("cases", "refused", "accepted", "tracebacks", "hangs"):
            setattr(self, name, getattr(self, name) + told[name])
        self.slowest = max(self.slowest, told["slowest"])
        self.peak = max(self.peak, told["peak"])
        self.over = max(self.over, told["peak"] - told["before"])
        self.failures += told["failures"]


def shares(surfaces: Sequence[Surface], cases: int) -> dict[str, int]:
    """How many cases each surface gets; together as many as asked for, or more where each gets a few."""
    whole = sum(surface.share for surface in surfaces)
    numbers = {surface.name: max(FEW, int(cases * surface.share / whole)) for surface in surfaces}
    largest = max(numbers, key=lambda name: numbers[name])
    numbers[largest] += max(0, cases - sum(numbers.values()))
    return numbers


def run_surface(surface: Surface, cases: int, seed: int) -> Row:
    """Run a surface's cases in processes, one after the other."""
    row = Row(surface=surface.name)
    number = 0
    while row.cases < cases and number < 2 * (cases // CHUNK + 20):
        wanted = min(CHUNK, cases - row.cases)
        told, ended = _process(surface.name, seed + 1_000 * number, wanted)
        if told is None:
            row.failures.append(f"the process ended before a case did ({ended})")
            row.tracebacks += 1
            break
        row.add(told)
        if ended:
            killed = told["cases"] - told["refused"] - told["accepted"] - told["tracebacks"] - told["hangs"]
            row.hangs += 1
            row.cases += 0 if killed else 1  # the one that was not told any more
            row.failures.append(f"after {told['cases']} cases of seed {seed + 1_000 * number}: {ended}")
        number += 1
    return row


def _process(name: str, seed: int, cases: int) -> tuple[dict[str, Any] | None, str]:
    """What a process told, and how it ended where that was not by itself."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "EQUIPOISE_CACHE": str(Path(folder) / "cache"),
            "EQUIPOISE_INDEX": str(Path(folder) / "index"),
        }  # fmt: skip
        command = [sys.executable, str(HERE / "_worker.py"), name, str(seed), str(cases), folder]
        file = Path(folder) / "told"
        with (Path(folder) / "errors").open("w+b") as errors:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
            ended = _wait(process, file)
            errors.seek(0)
            if process.returncode and not ended:
                ended = f"status {process.returncode}: {errors.read()[-1_500:].decode(errors='replace')}"
        try:
            told = json.loads(file.read_bytes().split(b"\n")[0])
        except (OSError, ValueError):
            told = None
    return told, ended


def _wait(process: subprocess.Popen[bytes], file: Path) -> str:
    """Wait for the end, or end it when it says nothing any more.

    Looks are counted, and not the clock's seconds: whoever stops this for a while stops both.
    """
    looks, last = 0, 0
    while process.poll() is None:
        time.sleep(PAUSE)
        looks += 1
        state = file.stat().st_mtime_ns if file.exists() else 0
        if state != last:
            looks, last = 0, state
        elif looks * PAUSE > SILENCE:
            process.kill()
            process.wait()
            return f"killed after {SILENCE:g} s in one case"
    return ""


def table(rows: Sequence[Row]) -> str:
    """The figures in Markdown."""
    header = (
        "surface",
        "cases",
        "refused with a line",
        "accepted",
        "tracebacks",
        "hangs",
        "slowest case, s",
        "peak memory, MB",
    )
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for row in rows:
        counts = (row.cases, row.refused, row.accepted, row.tracebacks, row.hangs)
        lines.append(
            f"| {row.surface} | " + " | ".join(f"{count:,}" for count in counts)
            + f" | {row.slowest:.1f} | {row.peak:,} (+{row.over:,}) |"
        )  # fmt: skip
    totals = [
        sum(getattr(row, name) for row in rows) for name in ("cases", "refused", "accepted", "tracebacks", "hangs")
    ]
    slowest, peak = max(row.slowest for row in rows), max(row.peak for row in rows)
    return "\n".join([*lines, f"| all | {' | '.join(f'{total:,}' for total in totals)} | {slowest:.1f} | {peak:,} |"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="surfaces whose names hold this")
    parser.add_argument("--out", type=Path, help="a folder; surfaces that are in it already are not run again")
    parser.add_argument("--workers", type=int, default=1, help="processes at once")
    options = parser.parse_args()
    chosen = [surface for surface in SURFACES if options.only in surface.name]
    if not chosen:
        parser.error(f"--only: no surface has {options.only!r}; there are {', '.join(one.name for one in SURFACES)}")
    began = time.monotonic()

    def run(surface: Surface, cases: int) -> Row:
        file = None if options.out is None else options.out / f"{re.sub(r'[^a-z]+', '-', surface.name.lower())}.json"
        if file is not None and file.is_file():
            return Row(**json.loads(file.read_text(encoding="utf-8")))
        row = run_surface(surface, cases, options.seed)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(asdict(row), indent=2), encoding="utf-8")
        took = time.monotonic() - began
        found = [f"--- {surface.name}\n{failure}\n" for failure in row.failures[:10]]
        lines = [f"{surface.name}: {row.cases:,} cases, {took:,.0f} s so far", *found]
        print("\n".join(lines), file=sys.stderr, flush=True)
        return row

    with ThreadPoolExecutor(options.workers) as pool:  # each waits for a process
        rows = list(pool.map(run, chosen, shares(chosen, options.cases).values()))
    print(table(rows))
    print(f"\nseed {options.seed}, {time.monotonic() - began:,.0f} s")
    return 1 if any(row.tracebacks or row.hangs for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
