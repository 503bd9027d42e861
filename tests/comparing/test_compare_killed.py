"""`equipoise compare` as a command: kill -9 here and there, then the same command again; and mistakes, in a line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from _commands import runner
from comparing import _tiny as tiny
from equipoise.comparing.run import Comparison

Command = Callable[..., dict[str, Any]]
#: In the order in which they come: an event, a part of the path, the how many-th such event.
MOMENTS = [
    ("os.rename", "/comparison.json", 1),  # before anything is run
    ("os.mkdir", "nodes/constant@0-", 1),
    ("os.mkdir", "checkpoint-6", 1),
    ("open", "unfinished/colour.0.jsonl", 1),  # while it is scored
    ("os.rename", "/scores-test.json", 1),
    ("os.rename", "/comparison.json", 2),  # finished, and not yet in the numbers
    ("os.mkdir", "nodes/commit-clr+dwa@0-", 1),
    ("os.rename", "/comparison.tex", 3),
    ("os.rename", "/done.json", 1),
    ("os.mkdir", "nodes/commit-clr+dwa@1-", 1),
    ("os.rename", "/report.html", 1),
]


def without_times(file: Path) -> dict[str, Any]:
    """The one thing in it that depends on the clock is left out."""
    plain: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    plain["runs"] = [{**one, "step_time": None} for one in plain["runs"]]
    # Nor has it a p that the others' would be corrected for.
    plain["training"] = [cell for cell in plain["training"] if cell["quantity"] != "step time"]
    return plain


def test_killed_again_and_again(command: Command, recipe_file: Path, tmp_path: Path, finished: Comparison):
    arguments = ("compare", recipe_file, "--methods", tiny.METHODS, "--seeds", "0,1", "--out", tmp_path / "out")
    for moment in MOMENTS:
        died = command(*arguments, kill=moment)
        assert died["status"] == -signal.SIGKILL, (moment, died["printed"])
    # Any other process may be about to write a report: only an old one's remains are deleted.
    [leftover] = (tmp_path / "out").glob(".report.html-*")
    os.utime(leftover, (0, 0))
    ended = command(*arguments)
    assert ended["status"] == 0, ended["printed"]
    assert f"report: {tmp_path / 'out' / 'report.html'}" in ended["printed"]

    made = Comparison(tmp_path / "out")
    assert without_times(made.file) == without_times(finished.file)
    assert {path.name for path in made.nodes.iterdir()} == {path.name for path in finished.nodes.iterdir()}
    for path in made.nodes.iterdir():
        for name in ("metrics.jsonl", "scores-test.json", "recipe.yaml"):
            assert (path / name).read_bytes() == (finished.nodes / path.name / name).read_bytes()
    assert set(os.listdir(made.path)) == {
        "nodes", "comparison.json", "comparison.md", "comparison.tex", "comparison.csv", "report.html", ".locks",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "constant,comit"], "--methods: found 'comit'; allowed: a schedule (constant, "),
        (["--seeds", "0,0"], "--seeds: found 0 twice; seeds must differ"),
        (["--baseline", "commit+dwa"], "--baseline: found 'commit+dwa'; methods of this comparison: constant, "),
        (["--method", "a: train.learning_rat=1"], "train.learning_rat: unknown key; did you mean learning_rate?"),
        (["--slots", "2", "--ray", "auto"], "--slots is for this machine and --ray for a cluster; give one of them"),
    ],
)
def test_a_mistake_is_one_line(recipe_file, tmp_path, monkeypatch, capfd, options, message):
    run = runner("compare", monkeypatch, capfd)
    status, out, errors = run(recipe_file, "--out", tmp_path / "out", *options)
    assert (status, out) == (2, "")
    assert errors.startswith("equipoise: ")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()
