"""Running a command of ours on a table, in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise import cli

#: Arguments to status, output and errors.
Run = Callable[..., tuple[int, str, str]]
MAIN_SETS = (
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_VERBOSITY",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "TQDM_DISABLE",
    "TORCH_CPP_LOG_LEVEL",
)


def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment be after the test what it was before `cli.main()` set things in it."""
    for name in MAIN_SETS:
        monkeypatch.setenv(name, os.environ.get(name, ""))


def runner(command: str, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        put_back(monkeypatch)
        monkeypatch.setattr(sys, "argv", ["equipoise", command, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, errors = capfd.readouterr()
        return end.value.code or 0, out, errors

    return run


def mistake_of(run: Run, folder: Path, content: str | bytes, *options: str) -> str:
    """The one line that a bad table leaves, with FILE for its path and without what all lines begin with."""
    path = folder / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    status, out, errors = run(path, *options)
    assert (status, out) == (2, "")
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("equipoise: ")
    return errors.removeprefix("equipoise: ").replace(str(path), "FILE").rstrip()
