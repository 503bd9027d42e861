"""`equipoise watch` from the command line: it says where, answers, ends on Ctrl-C; what it refuses is one line."""

from __future__ import annotations

import os
import signal
import socket
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator

import pytest

from _commands import Run, runner
from equipoise.watching import serve
from equipoise.watching.server import WatchServer
from report._synthetic_runs import around, log_lines, write_run


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner("watch", monkeypatch, capfd)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a reader gets, who then presses Ctrl-C."""
    found: list[str] = []
    ended = threading.Event()
    # A shell starts what it sends to the background with SIGINT ignored, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Interrupted(WatchServer):
        def serve_forever(self, poll_interval: float = 0.01) -> None:
            def read() -> None:
                try:
                    with urllib.request.urlopen(self.url, timeout=60) as page:
                        found.append(page.read().decode())
                finally:
                    os.kill(os.getpid(), signal.SIGINT)
                    if not ended.wait(60):
                        found.append("Ctrl-C did nothing")
                        self.shutdown()

            reader = threading.Thread(target=read)
            reader.start()
            try:
                super().serve_forever(poll_interval)
            finally:
                ended.set()
                reader.join()

    monkeypatch.setattr(serve, "WatchServer", Interrupted)
    yield found
    signal.signal(signal.SIGINT, before)
    assert len(found) == 1


def test_it_answers_until_ctrl_c(watch, answers, tmp_path):
    run = write_run(tmp_path / "run", log_lines({"llm": around(2.5, 0.2, 30)}))
    status, out, errors = watch(run.path, "--port", 0)
    assert (status, errors) == (0, "")
    assert out.count("\n") == 1
    assert out.startswith(f"watching {run.path}: http://127.0.0.1:")
    assert "Biased toward the LLM" in answers[0]


def test_a_browser_is_opened_where_it_is_asked_for(watch, answers, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    _, out, _ = watch(tmp_path / "later", "--port", 0, "--open")
    assert len(opened) == 1
    assert opened[0] in out
    assert "does not exist yet" in answers[0]


def test_an_open_address_is_said(watch, answers, tmp_path):
    status, out, _ = watch(tmp_path, "--port", 0, "--host", "0.0.0.0")
    assert status == 0
    assert "whoever reaches 0.0.0.0 can read it" in out
    assert "has no metrics.jsonl yet" in answers[0]


def test_a_port_in_use_is_one_line(watch, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, errors = watch(tmp_path, "--port", port)
    assert (status, out) == (2, "")
    assert errors == f"equipoise: port {port} of 127.0.0.1 is in use; --port names another, 0 takes any free one\n"


def test_a_recipe_cannot_be_watched(watch, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.touch()
    status, _, errors = watch(file)
    assert status == 2
    assert errors.startswith(f"equipoise: {file} is a file; allowed are run directories")
