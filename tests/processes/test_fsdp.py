"""Weights divided by FSDP2: several processes find the losses, kappas and learning rates of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CLOSE = 1e-6


def loop(*options: str) -> list[dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "_fsdp_loop.py"), "--json", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def check(rows: list[dict]) -> None:
    for row in rows:
        assert max(row["loss"], row["kappa"], row["lr"]) < CLOSE, row
        assert row["gathered"] < 0.75, row  # of the model's numbers, at most, in one process while it measured


def test_two_processes_measure_and_act_as_one():
    cases = ["commit exact", "commit sampled lora", "commit-clr lookback sgd"]
    rows = loop("--processes", "2", "--steps", "4", "--resume-at", "2", "--cases", ",".join(cases))
    check(rows)
    assert [row["case"] for row in rows] == cases
    assert min(row["kappas"] for row in rows) >= 2


@pytest.mark.slow
def test_all_schedules_and_estimators_in_two_three_and_four_processes():
    rows = loop("--processes", "2,3,4", "--steps", "50")
    check(rows)
    assert len(rows) == 45
