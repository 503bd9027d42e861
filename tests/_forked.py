"""A server of commands: `evaluation/_forked_commands.py` as a process, which has imported everything already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMANDS = Path(__file__).parent / "evaluation" / "_forked_commands.py"
#: All is imported before the first command is a fork.
START = (
    "import runpy, equipoise.balancing.run, equipoise.comparing.run; "
    f"runpy.run_path({str(COMMANDS)!r}, run_name='__main__')"
)


@contextmanager
def forked_commands() -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs a command in a process of its own, as `_forked_commands.py` says; its status and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "400"}
    server = subprocess.Popen(
        [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def run(*arguments: Any, **options: Any) -> dict[str, Any]:
        print(json.dumps({"arguments": list(map(str, arguments)), **options}), file=server.stdin, flush=True)
        answer: dict[str, Any] = json.loads(server.stdout.readline())
        return answer

    try:
        yield run
    finally:
        server.kill()  # what it had to say has been said; its own end, told by an empty input, can take a minute
        server.wait()
        server.stdin.close()
        server.stdout.close()
