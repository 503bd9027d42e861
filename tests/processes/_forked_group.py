"""Starts a command once in each of several processes, as torchrun does, but as forks of one that has imported all.

Where one of them ends with an error, the others are ended too (SIGTERM), a moment later, as torchrun does it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

MERCY = 1.0  # seconds that the others have
DEADLINE = 120.0


def fork_group(command: dict[str, Any], execute: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Execute a command in `processes` forks; their statuses (negative: the signal) and what each printed.

    A command may also have
    - `script`: the name of a module of the tests, and the arguments of its `main`, which is run in place of equipoise,
    - `pretends`: whether accelerate takes this CPU for an accelerator (`_pretended.py`),
    - `deadline`: seconds after which all are ended,
    - `dies`: [process, step] or [process, step, signal]: SIGKILL, or that one, at the end of a training step.
    """
    count = command["processes"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder) / str(number) for number in range(count)]
        for number in range(count):
            child = os.fork()
            if child == 0:
                os.environ.update(
                    RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count),
                    MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                )  # fmt: skip
                file = os.open(printed[number], os.O_CREAT | os.O_WRONLY)
                os.dup2(file, 1)
                os.dup2(file, 2)
                _be(command, number, execute)
            children.append(child)
        statuses = _wait(children, command.get("deadline", DEADLINE))
        return {"statuses": statuses, "printed": [file.read_text(errors="replace") for file in printed]}


def _be(command: dict[str, Any], number: int, execute: Callable[[dict[str, Any]], None]) -> None:
    status = 1
    try:
        if command.get("dies", [None])[0] == number:
            _die_after(*command["dies"][1:])
        if command.get("pretends"):
            import_module("processes._pretended").pretend()
        if "script" in command:
            name, *arguments = command["script"]
            import_module(name).main(*arguments)
        else:
            execute(command)
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _die_after(step: int, number: int = signal.SIGKILL) -> None:
    from equipoise.training.trainer import BalanceMixin

    end = BalanceMixin._end_step

    def ended(self: Any) -> None:
        end(self)
        if self.state.global_step == step:
            os.kill(os.getpid(), number)

    BalanceMixin._end_step = ended  # type: ignore[method-assign]


def _wait(children: list[int], deadline: float) -> list[int]:
    """The statuses of all; nobody is waited for without end."""
    found: dict[int, int] = {}
    began = time.monotonic()
    failed: float | None = None
    while len(found) < len(children):
        for child in children:
            if child not in found:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    found[child] = os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if failed is None and any(found.values()):
            failed = now
        if (failed is not None and now - failed > MERCY) or now - began > deadline:
            for child in set(children) - set(found):
                os.kill(child, signal.SIGTERM if now - began <= deadline else signal.SIGKILL)
        time.sleep(0.02)
    return [found[child] for child in children]
