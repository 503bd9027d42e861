"""kill -9 at every node's beginning and inside nodes, then the same command again: the bytes of an undisturbed one.

Each command runs in a process of its own, which kills itself at one exact file operation.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.balancing.run import Balancing

Command = Callable[..., dict[str, Any]]
#: In the order in which they come: an event, a part of the path, the how many-th such event.
MOMENTS = [
    ("os.mkdir", "nodes/mini-", 1),
    ("os.rename", "/model", 1),  # trained, not saved
    ("open", "unfinished/colour.0.jsonl", 2),  # validation, in the middle
    ("os.rename", "scores-validation.json", 1),  # scored, not kept
    ("os.mkdir", "nodes/colour+mini-", 1),
    ("os.mkdir", "checkpoint-15", 1),  # trained for 15 steps, 10 of which are kept
    ("os.rename", "done.json", 1),
    ("os.mkdir", "nodes/name+mini-", 1),
    ("shutil.rmtree", "checkpoints", 1),  # done, its checkpoints still there
    ("os.rename", "/balance.json", 1),
    ("os.mkdir", "nodes/cotbal-", 1),
    ("os.mkdir", "checkpoint-35", 1),
    ("os.rename", "scores.json", 1),
    ("os.mkdir", "nodes/stl@colour-", 1),
    ("os.rename", "/recipe.yaml", 1),  # its folder is there and holds nothing but half of a file
    ("os.mkdir", "nodes/stl@name-", 1),
    ("os.mkdir", "nodes/ew-", 1),
    ("os.rename", "/results.json", 1),
]


@pytest.fixture
def file(content: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content()), encoding="utf-8")
    return path


def test_killed_again_and_again(command: Command, file: Path, tmp_path: Path, finished: Balancing):
    arguments = ("balance", file, "--compare", "stl,ew", "--out", tmp_path / "out")
    for moment in MOMENTS:
        died = command(*arguments, kill=moment)
        assert died["status"] == -signal.SIGKILL, (moment, died["printed"])
    ended = command(*arguments)
    assert ended["status"] == 0, ended["printed"]
    assert f"weights: {tmp_path / 'out' / 'balance.json'}" in ended["printed"]

    made = Balancing(tmp_path / "out")
    for name in ("balance.json", "results.json"):
        assert (made.path / name).read_bytes() == (finished.path / name).read_bytes()
    assert {path.name for path in made.nodes.iterdir()} == {path.name for path in finished.nodes.iterdir()}
    for path in made.nodes.iterdir():
        undisturbed = finished.nodes / path.name
        for name in ("metrics.jsonl", "scores.json", "recipe.yaml"):
            assert (path / name).read_bytes() == (undisturbed / name).read_bytes()
        left = {str(inside.relative_to(path)) for inside in path.rglob("*")}
        assert left == {str(inside.relative_to(undisturbed)) for inside in undisturbed.rglob("*")}
    assert {path.name for path in made.path.iterdir()} == {
        "nodes",
        "balance.json",
        "results.json",
        "costs.json",
        ".locks",
    }


def test_the_command_takes_overrides_and_says_what_is_undefined(command: Command, file: Path, tmp_path: Path):
    arguments = ("balance", file, "train.learning_rate=0", "train.epochs=1", "--out", tmp_path / "out")
    stopped = command(*arguments)
    assert stopped["status"] == 2
    assert "equipoise: task colour: score 0.0 after colour+mini is not above 0.0 after mini" in stopped["printed"]
    ended = command(*arguments, "--on-degenerate", "zero", "--seed", "3", "--dry-run")
    assert ended["status"] == 0
    assert "4 runs; together they cost 1.80 times" in ended["printed"]
    assert "tuned model" not in ended["printed"]
