"""SIGTERM as a request: raised where nothing is in hand, noted where something is finished first; a second kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from equipoise.stopping import Stopped, asked, check, finishing, kept, stoppable


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)  # Python's handlers run between its instructions


def test_where_nothing_is_in_hand_it_ends_there() -> None:
    before, came = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Stopped), stoppable():  # noqa: PT012
        ask()
        came.append("further")
    assert came == []
    assert signal.getsignal(signal.SIGTERM) is before
    assert not asked()


def test_what_is_in_hand_is_finished_first() -> None:
    done = []
    with pytest.raises(Stopped), stoppable():  # noqa: PT012
        with finishing():
            ask()
            assert asked()
            done.append("step")
        check()
        done.append("next step")
    assert done == ["step"]
    check()  # it was another command's


@pytest.mark.parametrize("comes", ["meanwhile", "later"])
def test_a_library_that_listens_too_is_not_asked_in_our_place(comes: str) -> None:
    done = []
    with pytest.raises(Stopped), stoppable():  # noqa: PT012
        with kept():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
            if comes == "meanwhile":
                ask()
            done.append("connected")
        ask()
        done.append("further")
    assert done == ([] if comes == "meanwhile" else ["connected"])


ENDS = """
import os, signal, sys, time
sys.argv[0] = "equipoise"  # as in the command, which imports no models yet
from equipoise.stopping import asked, finishing, stoppable

def ask():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)

with stoppable():
    if sys.argv[1] == "finishes":
        with finishing():
            ask()
            if asked():
                ask()
    else:
        ask()
"""


@pytest.mark.parametrize(("world", "what"), [("1", "finishes"), ("2", "finishes"), ("2", "ends")])
def test_the_second_ends_the_process_and_so_does_one_that_would_leave_others_alone(world: str, what: str) -> None:
    # Not a fork of this process, in which others' threads may hold whatever locks.
    ended = subprocess.run([sys.executable, "-c", ENDS, what], env={**os.environ, "WORLD_SIZE": world}, timeout=60)
    assert ended.returncode == -signal.SIGTERM
