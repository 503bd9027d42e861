"""What a full or closed disk makes Python, torch and safetensors raise, as one line."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from equipoise.disk import told, trouble
from equipoise.errors import DiskError
from equipoise.training.run_directory import LineLog, write_atomically

TENSORS = {"a": torch.zeros(5000)}


@pytest.fixture
def small() -> Iterator[None]:
    """No file may grow beyond 10,000 bytes, which is one of the ways in which a disk is full."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def append(file: Path) -> None:
    log = LineLog(file)
    try:
        for _ in range(100):
            log.write({"step": "x" * 200})
    finally:
        log.close()


WRITERS: dict[str, Callable[[Path], None]] = {
    "a log": append,
    "a text": lambda file: write_atomically(file, "x" * 20_000),
    "torch": lambda file: torch.save(TENSORS, file),
    "safetensors": lambda file: save_file(TENSORS, file),
    "tokenizers": lambda file: Tokenizer(models.WordLevel({str(n): n for n in range(5000)})).save(str(file)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line(small: None, tmp_path: Path, writer: str) -> None:
    with pytest.raises(DiskError) as error, told(tmp_path):
        WRITERS[writer](tmp_path / "file")
    line = str(error.value)
    assert str(tmp_path) in line
    assert "MB free); what was written whole stays" in line
    assert "\n" not in line


def test_what_may_not_be_written_is_named() -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs/x/recipe.yaml")
    assert trouble(denied, Path("runs/x")) == "runs/x/recipe.yaml: Permission denied"
    closed = OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert trouble(closed, Path("runs/x")) == "runs/x: Read-only file system"
    moved = OSError(errno.EACCES, "Permission denied", "a", None, "b")
    assert trouble(moved) == "b: Permission denied"


def test_the_last_bytes_of_an_archive_that_find_no_room() -> None:
    """Found by tests/faults: torch.save on a tmpfs that is full by a few bytes."""
    line = trouble(RuntimeError("basic_ios::clear: iostream error"), Path("runs/x"))
    assert line is not None
    assert line.startswith("runs/x: No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("(os error 28)"),
    ],
)
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    assert trouble(error, tmp_path) is None
    with pytest.raises(type(error)), told(tmp_path):
        raise error
