"""The notebook in examples/: valid, executed from top to bottom, small, and free of the machine that executed it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "examples" / "notebook.ipynb"
NOTEBOOK = nbformat.read(FILE, as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


def test_is_valid() -> None:
    nbformat.validate(NOTEBOOK)


def test_was_executed_in_order_without_an_error() -> None:
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    assert not [output for cell in CODE for output in cell.outputs if output.output_type == "error"]


def test_shows_what_it_says() -> None:
    kinds = {kind for cell in CODE for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/svg+xml", "text/markdown"} <= kinds
    text = json.dumps([cell.outputs for cell in CODE])
    assert "did you mean" in text or "input should be" in text  # the mistake in a recipe
    assert "exact_match" in text


def test_names_no_place_of_a_machine_and_stays_small() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|root|tmp|work|Users|usr)/|site-packages|Traceback", text)
    assert len(text) < 1_500_000


def test_draws_nothing_from_another_host() -> None:
    for cell in CODE:
        for output in cell.outputs:
            for kind in ("text/html", "image/svg+xml", "application/javascript"):
                shown = "".join(output.get("data", {}).get(kind, ""))
                assert not re.search(r"(?:src|href)=.?https?://|@import|<script", shown)


@pytest.mark.parametrize("cell", CODE, ids=lambda cell: cell.id)
def test_cells_use_names_that_are_there(cell: nbformat.NotebookNode) -> None:
    """Every module and name that a cell imports of equipoise exists today."""
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("equipoise"):
            module = __import__(str(node.module), fromlist=[name.name for name in node.names])
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module}.{name.name}"


@pytest.mark.slow
def test_runs_again(tmp_path: Path) -> None:
    copy = tmp_path / "notebook.ipynb"
    copy.write_bytes(FILE.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "notebook.py"), str(copy)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    again = nbformat.read(copy, as_version=4)
    assert [cell.source for cell in again.cells] == [cell.source for cell in NOTEBOOK.cells]
