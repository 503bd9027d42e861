"""SIGTERM as a request: what is in hand is finished, or left as a kill would leave it, and the end is no failure.

A command that can be started again runs inside `stoppable`. A signal raises `Stopped` wherever it comes; inside
`finishing` it is only noted, for whoever asks at the next good moment. The second one ends the process at once.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Stopped(BaseException):
    """The process was asked to stop; says how far it came. No Exception: libraries catch these while they load."""


@dataclass
class _Request:
    asked: bool = False
    deferred: int = 0


_request = _Request()


@contextmanager
def stoppable() -> Iterator[None]:
    """A command that SIGTERM ends well; only a process's main thread can hear it.

    Raises:
        Stopped: it was asked to.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _request.asked = False


@contextmanager
def finishing() -> Iterator[None]:
    """What runs inside asks by itself, and comes to an end soon when it is told so."""
    _request.deferred += 1
    try:
        yield
    finally:
        _request.deferred -= 1


@contextmanager
def kept() -> Iterator[None]:
    """What runs inside may take SIGTERM for itself, and exit by it; afterwards whoever heard it before does, also one
    that came meanwhile.

    Raises:
        Stopped: it did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hears, came = signal.getsignal(signal.SIGTERM), False
    try:
        yield
    except SystemExit:
        came = True
    finally:
        signal.signal(signal.SIGTERM, hears)
    if came:
        signal.raise_signal(signal.SIGTERM)
        check()


def asked() -> bool:
    """Whether to stop."""
    return _request.asked


def check() -> None:
    """Stop here if it was asked for.

    Raises:
        Stopped: it was.
    """
    if _request.asked:
        raise Stopped("stopped")


def go_on(arguments: Sequence[str]) -> str:
    """The command line that goes on with a stopped command.

    Args:
        arguments: of the stopped one, its name first.
    """
    resumes = arguments[0] in ("train", "diagnose") and "--resume" not in arguments
    return shlex.join(["equipoise", *arguments, *(["--resume"] if resumes else [])])


def _hear(number: int, _: Any) -> None:
    # Of several processes none leaves the others alone; but where they train, they agree on a step to end with.
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if _request.asked or not (alone or _request.deferred):
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _request.asked = True
    if not _request.deferred:
        raise Stopped("stopped")
