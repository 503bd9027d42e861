"""experiments/records.py: what is kept of finished runs, and what stays when others are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest

from equipoise.comparing.measured import Measured


@pytest.fixture(scope="module")
def records(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("records")


def _comparison(folder: Path, losses: dict[str, float | None], lines: list[dict[str, float | None]]) -> None:
    """One seed of some methods, as `equipoise compare` leaves it; they all have the same log."""
    runs = [Measured(name, 3, (f"{name}@3-ab",), {"vqa": {"exact_match": 0.5}}, loss) for name, loss in losses.items()]
    for run in runs:
        (folder / "nodes" / run.nodes[0]).mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "nodes" / run.nodes[0] / "metrics.jsonl").write_text(text)
    (folder / "comparison.json").write_text(json.dumps({"runs": [asdict(run) for run in runs]}))


LINES = [
    {"step": 1, "loss": 3.1234567, "grad_norm/llm": 1.0, "lr_factor/llm": 1.25},
    {"step": 2, "loss": None, "grad_norm/llm": 2.0, "kappa": 0.5, "kappa/qformer": 8.0, "theory/lambda": 1.25},
]


def test_a_run_comes_back_as_it_was_measured(records: ModuleType, tmp_path: Path) -> None:
    _comparison(tmp_path / "out", {"commit": 0.123456789, "diverged": None}, LINES)
    records.record(tmp_path / "out", tmp_path / "kept.jsonl")
    found = records.recorded(tmp_path / "kept.jsonl")
    assert list(found) == ["commit", "diverged"]
    run = found["commit"][3]
    assert run.measured == Measured("commit", 3, ("commit@3-ab",), {"vqa": {"exact_match": 0.5}}, 0.123456789)
    assert run.lines == [
        {"loss": 3.1235, "lr_factor/llm": 1.25},
        {"kappa": 0.5, "kappa/qformer": 8.0, "theory/lambda": 1.25},
    ]
    assert found["diverged"][3].measured.validation_loss is None


def test_a_log_of_the_theorems_numbers_is_kept_with_its_gradients(records: ModuleType, tmp_path: Path) -> None:
    _comparison(tmp_path / "out", {"commit": 1.0}, [{**LINES[1], "theory/H/llm": 4.0, "lr/llm": 0.1}])
    records.record(tmp_path / "out", tmp_path / "kept.jsonl")
    [line] = records.recorded(tmp_path / "kept.jsonl")["commit"][3].lines
    kappas = {"kappa": 0.5, "kappa/qformer": 8.0}
    assert line == {"grad_norm/llm": 2.0, **kappas, "theory/lambda": 1.25, "theory/H/llm": 4.0}


def test_runs_that_a_folder_lacks_stay_and_those_it_has_are_replaced(records: ModuleType, tmp_path: Path) -> None:
    _comparison(tmp_path / "one", {"constant": 1.0, "commit": 2.0}, LINES)
    _comparison(tmp_path / "two", {"commit": 0.5}, LINES)
    for folder in ("one", "two"):
        records.record(tmp_path / folder, tmp_path / "kept.jsonl")
    found = records.recorded(tmp_path / "kept.jsonl")
    assert {name: runs[3].measured.validation_loss for name, runs in found.items()} == {"constant": 1.0, "commit": 0.5}
    assert records.recorded(tmp_path / "none.jsonl") == {}
