"""Nothing of ours asks the network unasked: not at import, not in a run on a model and data that lie on this disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from equipoise.cli import app
from training import _checkpoint as tiny

CLOSED = Path(__file__).with_name("_closed.py")
SCORES = "run,a,b\nmini,0.5,0.5\na+mini,0.7,0.5\nb+mini,0.6,0.8\n"
#: What would keep a library silent, or tell this process what to listen to.
SET_BY_OTHERS = ("OFFLINE", "TELEMETRY", "USAGE_STATS", "TRACKING", "WANDB", "DO_NOT_TRACK")


def names_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from names_of(below, (*path, name))


def closed(lines: list[list[str]], folder: Path) -> dict[str, dict[str, Any]]:
    """What each command line tried, in one process without a network."""
    (folder / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not any(part in name for part in SET_BY_OTHERS)}
    done = subprocess.run(
        [sys.executable, CLOSED, "lines.json", "found.json"],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env={**kept, "HF_HOME": str(folder / "hub"), "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


def test_no_import_and_no_command_asks_the_network(tmp_path: Path) -> None:
    data = tiny.make_dataset(tmp_path / "data")
    content = tiny.settings(tiny.make_checkpoint(tmp_path / "checkpoint"), data, {"schedule": "commit"}, max_steps=2)
    content["tasks"] = [{**content["tasks"][0], "name": name} for name in ("a", "b")]
    content["model"]["lora"]["merge"] = True
    content["balance"]["cotbal"] = {"mini_fraction": 0.25}
    recipe = str(tiny.write_recipe(tmp_path / "recipe.yaml", content))
    (tmp_path / "scores.csv").write_text(SCORES, encoding="utf-8")
    helps = [[*path, "--help"] for path in names_of(get_command(app))]
    assert ["data", "fetch", "--help"] in helps
    work = [
        ["train", recipe, "--out", "run"],
        ["evaluate", "run"],
        ["report", "run"],
        ["diagnose", "run"],
        ["data", recipe],
        ["balance", recipe, "--dry-run"],
        ["compare", recipe, "--methods", "constant,commit", "--dry-run"],
        ["weights", "scores.csv"],
    ]
    imports = [
        ["python", "from equipoise import BalancedTrainer, attach"],
        ["python", "import equipoise.balancing.on_ray, os; assert os.environ['RAY_USAGE_STATS_ENABLED'] == '0'"],
    ]
    found = closed([*helps, *work, *imports], tmp_path)
    assert {line: one["status"] for line, one in found.items() if one["status"] != 0} == {}
    assert {line: one["tried"] for line, one in found.items() if one["tried"]} == {}
    assert (tmp_path / "run" / "scores.json").is_file()


@pytest.mark.parametrize("look", ["socket.create_connection(('127.0.0.1', 9))", "socket.getaddrinfo('a.invalid', 80)"])
def test_a_look_would_be_seen(look: str, tmp_path: Path) -> None:
    code = f"import contextlib, socket\nwith contextlib.suppress(OSError): {look}"
    [found] = closed([["python", code]], tmp_path).values()
    assert found["tried"]
    assert "socket." in found["tried"][0]
