"""A process that has left its group has none of gloo's threads, which may abort it at its end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
import torch
from torch import distributed
from equipoise.training.processes import leave

def gloo():
    threads = (file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))
    return sum("gloo" in name for name in threads)

def train():
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    model(torch.ones(1, 2)).sum().backward()
    trainer = {"model": model}
    trainer["callback"] = trainer  # as a Trainer is among its own callbacks' references

leave()  # in no group: nothing to do
distributed.init_process_group("gloo")
train()
print(gloo())
leave()
print(gloo(), distributed.is_initialized())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads' names are read from /proc")
def test_leaving_ends_gloos_threads():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=os.environ | alone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, *after = done.stdout.split()
    assert int(before) > 0
    assert after == ["0", "False"]
