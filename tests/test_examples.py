"""The examples run as they stand, on the embedded model and data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(command: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[[str], str]:
    """Run an example for two steps; what it printed."""

    def run(example: str) -> str:
        done = command("2", file=str(EXAMPLES / example), folder=str(tmp_path))
        assert done["status"] == 0, done["errors"][-2000:]
        printed: str = done["stdout"]
        return printed

    return run


def test_bare_loop_measures_kappa_and_moves_the_learning_rates(run) -> None:
    lines = [line.split() for line in run("bare_loop.py").splitlines() if line.startswith("step")]
    assert len(lines) == 2
    assert float(lines[0][5]) > 0  # kappa
    first, second = (line[-3::2] for line in lines)
    assert first[0] == first[1]  # nothing measured before the first step: equal rates
    assert second[0] != second[1]


def test_attach_trl_adds_kappa_to_an_ordinary_sft_script(run, tmp_path: Path) -> None:
    output = run("attach_trl.py")
    assert "'kappa':" in output
    assert len((tmp_path / "runs/attach_trl/metrics.jsonl").read_text().splitlines()) == 2


def test_attach_trl_needs_three_lines_of_ours() -> None:
    ours = [line for line in (EXAMPLES / "attach_trl.py").read_text().splitlines() if "# line" in line]
    assert len(ours) == 3


def test_trainer_balances_modules_and_tasks(run, tmp_path: Path) -> None:
    output = run("trainer.py")
    assert "'kappa':" in output
    lines = [json.loads(line) for line in (tmp_path / "runs/trainer/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert {name for line in lines for name in line if name.startswith("task_weight/")} == {
        "task_weight/vqa",
        "task_weight/caption",
    }


#: accelerate's launcher starts several processes on GPUs alone; on CPUs torchrun does.
LAUNCHERS = {
    1: ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no"],
    2: ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
}  # fmt: skip


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_accelerate_launch_balances_modules_and_tasks_in_any_process(processes: int, tmp_path: Path) -> None:
    command = [sys.executable, *LAUNCHERS[processes], str(EXAMPLES / "accelerate_launch.py"), "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / "runs/accelerate_launch/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert "'kappa':" in done.stdout
    assert "'task_weight/" in done.stdout
