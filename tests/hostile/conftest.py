"""No case may wait for ever, as opening a pipe does, or take the square of its size."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

SECONDS = 120  # of a machine that may be busy


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        pytest.fail(f"it takes more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
