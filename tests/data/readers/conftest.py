"""What several readers' tests read from."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task's folder with empty media in it, and an image beside it that no row may name."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.png", "b.png", "a.wav"):
        (folder / name).touch()
    (tmp_path / "outside.png").touch()
    return folder
