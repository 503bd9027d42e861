"""Runs cases of one surface in this process, under limits, and says after each what became of them so far.

python tests/fuzz/_worker.py SURFACE SEED CASES FOLDER
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.argv[0] = "equipoise"  # as the command: without torch where that is not needed

from hypothesis import HealthCheck, Phase, given, seed, settings

from equipoise.errors import EquipoiseError
from fuzz._surface import Outcome, Surface, one_line

ROOM = 2_500_000_000  # bytes that cases may take on top of what is imported
KEPT = 5  # failures that are told in full


class OverTime(BaseException):
    """A case took too long; no `except Exception` may swallow it."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise OverTime


def limit_memory() -> None:
    """Let this process take so much more memory than it has, and no more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def peak() -> int:
    """Megabytes that this process has had in memory at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run_case(check: Any, case: Any, seconds: float, outcome: Outcome) -> None:
    """One case, counted."""
    outcome.cases += 1
    began = time.process_time()
    try:
        _timed(check, case, seconds)
        outcome.accepted += 1
    except EquipoiseError as error:
        try:
            one_line(str(error))
            outcome.refused += 1
        except AssertionError as wrong:
            _failed(outcome, wrong, case)
    except OverTime:
        outcome.hangs += 1
        _note(outcome, f"more than {seconds:g} s", case)
    except BaseException as error:  # a panic of a Rust library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        _failed(outcome, error, case)
    outcome.slowest = max(outcome.slowest, time.process_time() - began)


def _timed(check: Any, case: Any, seconds: float) -> None:
    """Run one case, to the end of its time: of this process's own, for the machine may be busy with others."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        # What libraries print by themselves is nobody's here.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(case)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _failed(outcome: Outcome, error: BaseException, case: Any) -> None:
    outcome.tracebacks += 1
    told = "".join(traceback.format_exception(error)[-6:])
    _note(outcome, told[-3_000:], case)


def _note(outcome: Outcome, told: str, case: Any) -> None:
    if len(outcome.failures) < KEPT:
        outcome.failures.append(f"{told}\ncase: {case!r:.1500}")


def run_cases(surface: Surface, folder: Path, start: int, cases: int, told: Any = lambda outcome: None) -> Outcome:
    """Make cases of a surface and run them; the same start makes the same cases."""
    outcome = Outcome()
    made, check = surface.prepare(folder)

    @seed(start)
    @settings(
        max_examples=cases, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=False,
    )  # fmt: skip
    @given(made)
    def every(case: Any) -> None:
        if outcome.cases < cases:
            run_case(check, case, surface.seconds, outcome)
            told(outcome)

    every()
    return outcome


def main() -> None:
    """One surface's cases, for the parent process."""
    from fuzz._surfaces import SURFACES

    name, start, cases, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    surface = next(one for one in SURFACES if one.name == name)
    signal.signal(signal.SIGPROF, _stop)
    os.chdir(folder)
    limit_memory()
    before = peak()
    with (folder / "told").open("wb") as file:

        def told(outcome: Outcome) -> None:
            # Whole after each case: a library may end the process.
            text = json.dumps({**asdict(outcome), "before": before, "peak": peak()}).encode()
            os.pwrite(file.fileno(), text + b"\n", 0)

        run_cases(surface, folder, start, cases, told)
    assert not (folder / "pwned").exists(), "a case ran a command"


if __name__ == "__main__":
    main()
