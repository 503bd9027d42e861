"""The sbatch scripts of examples/cluster: what they start, and when they queue themselves again. Slurm is pretended."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"
SCRIPTS = sorted(EXAMPLES.glob("slurm_*.sh"))
#: Notes what it is asked, leaves in the run directory what it is told to, and ends as it is told to.
SRUN = """#!/usr/bin/env bash
echo "$@" >> "$NOTES/srun"
for name in $LEAVES; do mkdir -p "$(dirname "$name")" && touch "$name"; done
exit "$STATUS"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >> "$NOTES/scontrol"
if [[ $1 == show ]]; then printf 'first\\nsecond\\n'; fi
"""
JOB = {
    "SLURM_JOB_ID": "4711", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "machine[1-2]", "SLURM_GPUS_ON_NODE": "4",
    "SLURM_CPUS_PER_TASK": "32", "SLURM_ARRAY_TASK_ID": "3",
}  # fmt: skip

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script as Slurm would, in an empty folder."""
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)

    def started(script: str, *arguments: str, leaves: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ, **JOB, "NOTES": str(tmp_path), "LEAVES": leaves, "STATUS": str(status),
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        return subprocess.run(
            ["bash", str(EXAMPLES / script), *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return started


def noted(folder: Path, tool: str) -> list[str]:
    file = folder / tool
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it_and_slurm_its_head(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    head, _, _ = text.partition("set -euo pipefail")
    options = [line for line in head.splitlines() if line.startswith("#SBATCH")]
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in options)  # sbatch takes comments for values
    assert {"#SBATCH --requeue", "#SBATCH --open-mode=append"} <= set(options)
    assert any(line.startswith("#SBATCH --signal=TERM@") for line in options)


def test_train_is_started_once_for_each_machine_and_resumes(run: Run, tmp_path: Path) -> None:
    done = run("slurm_train.sh", "a.yaml", "out", "train.seed=1", leaves="out/done.json")
    assert (done.returncode, done.stderr) == (0, "")
    [line] = noted(tmp_path, "srun")
    assert line == (
        "--wait=60 torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 1 "
        "--rdzv-backend c10d --rdzv-endpoint first:24711 --rdzv-id 4711-0 "
        "-m equipoise train a.yaml train.seed=1 --out out --resume"
    )
    assert noted(tmp_path, "scontrol") == ["show hostnames machine[1-2]"]


ENDS = {
    "slurm_train.sh": ("out/done.json", "out/checkpoints/checkpoint-5"),
    "slurm_seeds.sh": ("out/3/done.json", "out/3/checkpoints/checkpoint-5"),
    "slurm_balance.sh": ("out/results.json", "out/nodes/mini-1/checkpoints/checkpoint-5"),
}


@pytest.mark.parametrize("script", ENDS)
def test_a_job_that_is_done_is_not_queued_again(script: str, run: Run, tmp_path: Path) -> None:
    assert run(script, "a.yaml", "out", leaves=ENDS[script][0]).returncode == 0
    assert "requeue 4711" not in noted(tmp_path, "scontrol")


@pytest.mark.parametrize("script", ENDS)
@pytest.mark.parametrize("status", [0, 1])  # a run that is asked to stop may end well
def test_a_job_that_came_further_is_queued_again(script: str, status: int, run: Run, tmp_path: Path) -> None:
    done = run(script, "a.yaml", "out", leaves=ENDS[script][1], status=status)
    assert done.returncode == 0
    assert noted(tmp_path, "scontrol").count("requeue 4711") == 1


@pytest.mark.parametrize("script", ENDS)
def test_a_job_that_came_no_further_is_not(script: str, run: Run, tmp_path: Path) -> None:
    """A mistake in the recipe would go round for ever."""
    for name in ENDS[script][1:]:
        (tmp_path / name).mkdir(parents=True)
    done = run(script, "a.yaml", "out", leaves=ENDS[script][1], status=2)
    assert done.returncode == 1
    assert "(status 2)" in done.stdout
    assert "requeue 4711" not in noted(tmp_path, "scontrol")


def test_a_seed_has_its_own_folder_and_is_scored(run: Run, tmp_path: Path) -> None:
    run("slurm_seeds.sh", "a.yaml", "out", "train.epochs=2", leaves="out/3/done.json")
    assert noted(tmp_path, "srun") == [
        "equipoise train a.yaml train.epochs=2 --seed 3 --out out/3 --resume",
        "equipoise evaluate out/3",
    ]


def test_balance_fills_the_machine(run: Run, tmp_path: Path) -> None:
    run("slurm_balance.sh", "a.yaml", "out", "--compare", "stl,ew", leaves="out/results.json")
    assert noted(tmp_path, "srun") == ["equipoise balance a.yaml --compare stl,ew --out out --slots 4"]
