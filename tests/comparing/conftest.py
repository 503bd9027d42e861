"""A recipe and one finished comparison: made once, only read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from balancing import _mixture as mixture
from comparing import _tiny as tiny
from equipoise.comparing.run import Comparison, compare
from training import _checkpoint


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    checkpoint = _checkpoint.make_checkpoint(folder / "checkpoint")
    for name in mixture.TASKS:
        mixture.make_task(folder / "data" / name, name)
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny.settings(checkpoint, folder / "data")), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def finished(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Never interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    return compare(tiny.recipes(recipe_file), tiny.SEEDS, folder, Console(file=io.StringIO()))
