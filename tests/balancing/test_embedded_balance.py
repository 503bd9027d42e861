"""CoTBal on the embedded model and data, five tasks and a conversation, killed at every node and inside nodes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE = Path(__file__).parents[2] / "recipes" / "embedded-mixture.yaml"
TASKS = ("vqa", "caption", "region", "chart", "count")
PROBES = ("mini", *(f"{task}+mini" for task in TASKS))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The recipe, made small: a few steps a run, a few answers."""
    plain = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    for task in plain["tasks"]:
        task["max_train"] = 16
        if task["name"] != "chat":
            task |= {"max_validation": 6, "max_test": 4}
    plain["balance"]["cotbal"] = {"mini_fraction": 0.25, "on_degenerate": "zero"}
    plain["train"] |= {"save_steps": 1, "threads": 1}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


@pytest.mark.slow
def test_killed_at_every_node_and_inside_nodes(command: Callable[..., dict[str, Any]], file: Path, tmp_path: Path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    ended = command("balance", file, "--out", undisturbed)
    assert ended["status"] == 0, ended["printed"]
    moments = [
        moment
        for name in (*PROBES, "cotbal")
        for moment in (
            ("os.mkdir", f"nodes/{name}-", 1),
            ("os.mkdir", "checkpoint-2", 1),  # in the middle of training
            ("open", ".unfinished/", 4),  # in the middle of answering
        )
    ]
    for moment in moments:
        died = command("balance", file, "--out", killed, kill=moment)
        assert died["status"] == -signal.SIGKILL, (moment, died["printed"])
    ended = command("balance", file, "--out", killed)
    assert ended["status"] == 0, ended["printed"]

    for name in ("balance.json", "results.json"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
    found = json.loads((killed / "balance.json").read_text(encoding="utf-8"))
    assert found["tasks"] == list(TASKS)
    assert any(value for scores in found["scores"].values() for value in scores.values())
    for path in (undisturbed / "nodes").iterdir():
        assert (killed / "nodes" / path.name / "metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()
