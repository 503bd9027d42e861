"""Nodes at once on this machine: a process each, with a CUDA device of its own, or with its share of the CPU's cores.

The process is this module run as a script. It takes its work from its standard input as a line of JSON. A further line
asks it to stop after its step; and it ends when that input ends, which it does when whoever started it is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from equipoise.balancing.execution import Outcome, Work
from equipoise.console import PlainConsole
from equipoise.errors import EquipoiseError, RunError
from equipoise.locks import Held
from equipoise.quiet import quieten
from equipoise.stopping import Stopped, asked, stoppable

MISTAKE = 2
HELD = 3
STOPPED = 4
#: Seconds that all processes together may take to end their steps when this one is asked to stop.
GRACE = 60.0
MODULE = "equipoise.balancing.processes"


class Processes:
    """A process a slot.

    Args:
        count: of slots.
        devices: CUDA devices of this machine; 0: the CPU's cores are shared out.
    """

    def __init__(self, count: int, devices: int):
        self.count = count
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(devices)]
        self._free: list[str] = names[:count] if devices else [""] * count
        self._threads = None if devices else max(1, (os.cpu_count() or 1) // count)
        self._waiting = ThreadPoolExecutor(count)
        self._running: dict[Future[Outcome], tuple[str, subprocess.Popen[str]]] = {}

    def start(self, work: Work) -> str | None:
        device = self._free.pop(0)
        environment = dict(os.environ)
        if device:
            environment["CUDA_VISIBLE_DEVICES"] = device
        else:
            environment["OMP_NUM_THREADS"] = str(self._threads)
        work.log.parent.mkdir(parents=True, exist_ok=True)
        with work.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip
        _say(process, work.to_json())
        self._running[self._waiting.submit(_outcome, work, process)] = (device, process)
        return f"on CUDA device {device}" if device else "in a process of its own"

    def next(self) -> Outcome:
        ended = wait(self._running, return_when=FIRST_COMPLETED).done.pop()
        device, process = self._running.pop(ended)
        self._free.append(device)
        _close(process)
        return ended.result()

    def stop(self) -> None:
        if asked():
            self._stop_gently()
        for _, process in self._running.values():
            process.kill()  # whatever it was about to write is written whole or not at all
        self._waiting.shutdown()
        for _, process in self._running.values():
            _close(process)

    def _stop_gently(self) -> None:
        for _, process in self._running.values():
            _say(process, "stop")
        wait(self._running, timeout=GRACE)


def _say(process: subprocess.Popen[str], line: str) -> None:
    """Tell a process something, unless it has ended; that is seen elsewhere."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _outcome(work: Work, process: subprocess.Popen[str]) -> Outcome:
    """Wait for a process, and see how it ended."""
    assert process.stdout is not None
    said = process.stdout.read().strip()
    status = process.wait()
    if status == 0:
        return Outcome(work)
    if status < 0:
        return Outcome(work, death=f"its process was ended by signal {-status}")
    if status == STOPPED:
        return Outcome(work, death="its process was asked to stop")
    if status == HELD:
        return Outcome(work, held=said)
    reason = said if status == MISTAKE and said else f"it failed with status {status}; see {work.log}"
    return Outcome(work, error=RunError(f"{work.name}: {reason}"))


def _close(process: subprocess.Popen[str]) -> None:
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        with suppress(OSError):  # what it was not told any more
            stream.close()


def _follow_the_starter() -> None:
    # A signal to the whole group may have come here already, and a second one would end it at once.
    if sys.stdin.readline() and not asked():
        os.kill(os.getpid(), signal.SIGTERM)
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Run one node; what is printed goes to the log, a user's mistake to standard output as a line."""
    quieten()
    told = sys.stdin.readline()
    try:
        with stoppable():
            threading.Thread(target=_follow_the_starter, daemon=True).start()
            Work.from_json(told).run(PlainConsole(file=sys.stderr, width=120))
    except Stopped:
        sys.exit(STOPPED)
    except Held as error:
        print(error)
        sys.exit(HELD)
    except EquipoiseError as error:
        print(error)
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main()
