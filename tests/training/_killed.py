"""The command line with a death wish: `python _killed.py TEXT ARGUMENTS...` is `equipoise ARGUMENTS...`, which kills
itself (SIGKILL) at the first file event whose path contains TEXT, before the event happens; TEXT may begin with the
event's name and a colon. Without TEXT ("") it lives.

Python's audit events are the files' own: opened, renamed, made, removed. So any instant of writing can be hit, exactly.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def die_at(text: str) -> None:
    """Kill this process before the first file event that `text` describes."""
    wanted, colon, part = text.rpartition(":")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or (colon and event != wanted):
            return
        reads = event == "open" and isinstance(arguments[1], str) and "r" in arguments[1] and "+" not in arguments[1]
        if not reads and any(part in os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    moment, *arguments = sys.argv[1:]
    if moment:
        die_at(moment)
    sys.argv = ["equipoise", *arguments]
    from equipoise.cli import main

    main()
