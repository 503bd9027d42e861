"""Runs commands of ours one after the other in a process where every look at the network is written down and refused.

usage: _closed.py IN.json OUT.json: a list of command lines; for each what was tried, and the status

Python's audit events see what goes through the socket module in any thread. Native code that opens sockets by itself
(Ray's, hf-xet's) is not seen: none of these commands calls it.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

LOOKS = {
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto",
    "socket.sendmsg", "urllib.Request",
}  # fmt: skip
tried: list[str] = []


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in LOOKS or (event == "socket.connect" and isinstance(arguments[1], str | bytes)):
        return  # another process of this machine
    whence = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_stack()[-7:-1]]
    tried.append(f"{event} {arguments[-1]!r} from {' < '.join(reversed(whence))}")
    raise OSError("there is no network here")


def run(line: list[str]) -> int:
    """A command as the command line runs it; `python CODE` runs code."""
    if line[0] == "python":
        exec(line[1], {})
        return 0
    from equipoise import cli

    sys.argv = ["equipoise", *line]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main(asked: Path, answer: Path) -> None:
    sys.addaudithook(refuse)
    found = {}
    for line in json.loads(asked.read_text(encoding="utf-8")):
        tried.clear()
        status = run(line)
        found[" ".join(line)] = {"status": status, "tried": list(tried)}
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
