"""SIGTERM as a request: raised where nothing is in hand, noted where something is finished first; a second kills."""

from __future__ import annotations

import os
import signal
import time

import pytest

from equipoise.stopping import Stopped, asked, check, finishing, stoppable


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


@pytest.mark.parametrize(("signals", "world", "finishes"), [(2, "1", True), (2, "2", True), (1, "2", False)])
def test_the_second_ends_the_process_and_so_does_one_that_would_leave_others_alone(
    monkeypatch: pytest.MonkeyPatch, signals: int, world: str, finishes: bool
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    child = os.fork()
    if child == 0:
        with stoppable():
            if finishes:
                with finishing():
                    ask()
                    if asked():
                        ask()
            else:
                ask()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
