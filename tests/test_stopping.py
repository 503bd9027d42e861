"""SIGTERM as a request: raised where nothing is in hand, noted where something is finished first, obeyed at the second."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from equipoise.stopping import Stopped, asked, check, finishing, stoppable

TWICE = """
import os, signal
from equipoise.stopping import finishing, stoppable
with stoppable(), finishing():
    os.kill(os.getpid(), signal.SIGTERM)
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("never")
"""
BESIDE_OTHERS = TWICE.replace(", finishing():", ":")


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)  # Python's handlers run between its instructions


def test_where_nothing_is_in_hand_it_ends_there() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), stoppable():
        ask()
        pytest.fail("went on")
    assert signal.getsignal(signal.SIGTERM) is before
    assert not asked()


def test_what_is_in_hand_is_finished_first() -> None:
    done = []
    with pytest.raises(Stopped), stoppable():
        with finishing():
            ask()
            assert asked()
            done.append("step")
        check()
        done.append("next step")
    assert done == ["step"]
    check()  # it was another command's


@pytest.mark.parametrize(
    ("script", "world", "printed"), [(TWICE, "1", "goes on\n"), (TWICE, "2", "goes on\n"), (BESIDE_OTHERS, "2", "")]
)
def test_the_second_ends_the_process_and_so_does_one_that_would_leave_others_alone(
    script: str, world: str, printed: str
) -> None:
    environment = {**os.environ, "WORLD_SIZE": world}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, printed)
