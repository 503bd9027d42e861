"""slurm_train.sh on two pretended machines with a process each, by real torchruns: stopped, and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from training import _checkpoint as tiny

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "cluster" / "slurm_train.sh"
SCONTROL = '#!/usr/bin/env bash\nif [[ $1 == show ]]; then echo localhost; else echo "$*" >> "$NOTES"; fi\n'


def start(folder: Path, out: str, restarts: int = 0) -> subprocess.Popen[str]:
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths[::-1]), "NOTES": str(folder / "notes"), "PROCESSES": "1",
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "x", "SLURM_CPUS_PER_TASK": "1",
        "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip
    return subprocess.Popen(
        ["bash", SCRIPT, "recipe.yaml", out], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_a_job_whose_time_is_over_goes_on_to_the_same_end(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(Path(__file__).with_name("_srun.sh"), tmp_path / "bin" / "srun")
    (tmp_path / "bin" / "scontrol").write_text(SCONTROL, encoding="utf-8")
    for tool in (tmp_path / "bin").iterdir():
        tool.chmod(0o755)
    data = tiny.make_dataset(tmp_path / "data")
    content = tiny.settings(
        tiny.make_checkpoint(tmp_path / "checkpoint"), data, {"schedule": "commit"}, max_steps=60, save_steps=4
    )
    tiny.write_recipe(tmp_path / "recipe.yaml", content)

    undisturbed = start(tmp_path, "undisturbed")
    assert "finished: undisturbed" in undisturbed.communicate(timeout=400)[0]
    assert not (tmp_path / "notes").exists()

    stopped = start(tmp_path, "stopped")
    deadline = time.monotonic() + 300
    while not (tmp_path / "stopped/checkpoints/checkpoint-12").is_dir():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    [srun] = [child for child in psutil.Process(stopped.pid).children() if "srun" in " ".join(child.cmdline())]
    srun.send_signal(signal.SIGTERM)
    assert "queued again" in stopped.communicate(timeout=200)[0]
    assert (tmp_path / "notes").read_text(encoding="utf-8") == f"requeue {os.getpid()}\n"
    assert not (tmp_path / "stopped/done.json").exists()

    again = start(tmp_path, "stopped", restarts=1)
    assert "finished: stopped" in again.communicate(timeout=400)[0]
    first, second = (tmp_path / name / "metrics.jsonl" for name in ("undisturbed", "stopped"))
    assert first.read_bytes() == second.read_bytes()
