"""Following a live run: a line when the diagnosis changes, the end when the writer's run ends."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from equipoise.errors import RunError
from equipoise.report.diagnosis import BalanceDiagnosis, Diagnosis
from equipoise.training.run_directory import RunDirectory
from equipoise.watching import follow as follow_module
from equipoise.watching.follow import follow
from report._synthetic_runs import around, log_lines

WRITER = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
with (folder / "metrics.jsonl").open("w") as log:
    for line in sys.stdin:
        for part in (line[:30], line[30:]):  # a reader may see half a line at any time
            log.write(part)
            log.flush()
            time.sleep(0.002)
(folder / "done.json").write_text("{}")
"""


def test_a_writer_process_is_followed_to_its_end(tmp_path):
    """It begins balanced and ends far to one side; the follower begins before there is a folder."""
    folder = tmp_path / "run"
    kappas = [*around(0.0, 0.2, 40), *around(2.5, 0.2, 160)]
    lines = [json.dumps(line) + "\n" for line in log_lines({"llm": kappas})]
    said: list[str] = []
    waited: list[bool] = []
    writer = subprocess.Popen([sys.executable, "-c", WRITER, folder], stdin=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    into = writer.stdin

    def waiting() -> None:
        waited.append(True)
        into.writelines(lines[:40])
        into.flush()

    def changed(found: Diagnosis | BalanceDiagnosis) -> None:
        if not said:  # the other side begins once the follower has seen the first
            into.writelines(lines[40:])
            into.close()
        said.append(found.sentence())

    try:
        last = follow(folder, changed, waiting, 0.01)
        assert writer.wait(60) == 0
    finally:
        writer.kill()
        writer.wait()
    assert waited == [True]
    assert isinstance(last, Diagnosis)
    assert (last.finished, last.steps) == (True, 200)
    assert said[-1] == last.sentence() == "biased toward the LLM"
    assert said[0] in ("not enough measurements", "balanced")
    assert all(one != other for one, other in pairwise(said))


def test_what_is_written_before_the_end_is_read(tmp_path):
    """The end is asked for before the log is read, else its last lines could be missed."""
    run = RunDirectory(tmp_path / "run")
    lines = [json.dumps(line) + "\n" for line in log_lines({"llm": around(2.5, 0.1, 30)})]
    run.path.mkdir()
    run.metrics_file.write_text("".join(lines[:2]), encoding="utf-8")
    seen: list[int] = []

    def changed(found: object) -> None:
        assert isinstance(found, Diagnosis)
        seen.append(found.steps)
        if len(seen) == 1:  # all the rest, while the follower is at work
            with run.metrics_file.open("a", encoding="utf-8") as log:
                log.writelines(lines[2:])
            run.done_file.write_text("{}", encoding="utf-8")

    last = follow(run.path, changed, lambda: None, 0.0)
    assert isinstance(last, Diagnosis)
    assert last.steps == 30
    assert seen == [2, 30]


def test_an_interrupt_ends_with_what_is_known(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "attached")
    run.path.mkdir()
    log = log_lines({"llm": around(2.5, 0.1, 30)})
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    calls = []

    def sleep(seconds: float) -> None:
        calls.append(seconds)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(follow_module.time, "sleep", sleep)
    said: list[object] = []
    last = follow(run.path, said.append, lambda: None, 2.0)
    assert said == [last]
    assert isinstance(last, Diagnosis)
    assert last.finished is None
    assert min(calls) >= 2.0
    assert follow_nothing(tmp_path / "nowhere", monkeypatch) is None


def test_a_folder_that_cannot_be_read_is_a_mistake_in_a_line(tmp_path, monkeypatch):
    def closed(folder: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(follow_module, "is_finished", closed)
    with pytest.raises(RunError, match=r"run cannot be read: Permission denied$"):
        follow(tmp_path / "run", lambda found: None, lambda: None)


def follow_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow_module.time, "sleep", interrupt)
    return follow(folder, lambda found: None, lambda: None)
