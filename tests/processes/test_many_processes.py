"""Two processes find what one finds at the same global batch, and both find the same numbers to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from processes import _training
from processes._compared import Comparison, compare, records
from processes._training import Case
from processes.matrix import ESTIMATORS, wrong

COMMIT = {"schedule": "commit", "window": 3}
CASES = [
    *(
        Case(name, {**COMMIT, "estimator": name, "every": 2 if name == "sampled" else None}, awkward=True)
        for name in ESTIMATORS
    ),
    Case("dwa", {"schedule": "commit-clr", "window": 3}, {"weighter": "dwa"}, steps=4),
    Case("attached", COMMIT, tasks=None, dtype="float32", steps=2, optimizer="sgd", attached=True),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, group: Callable[..., str]) -> Path:
    """All cases, trained by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in CASES]))
    for count in (1, 2):
        group(count, _training.__name__, folder / "cases.json", folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_processes_find_what_one_does_and_the_same_to_the_bit(case: Case, out: Path):
    found: Comparison = compare(out / case.name, 2)
    assert wrong(case, found) == []
    assert found.measured > 0
    if case.dtype == "float64":
        assert max(found.gradients) < 1e-12


def test_every_process_knows_the_kappa_of_a_task_that_it_never_sees(out: Path):
    for record in records(out / "exact", 1, 2):
        assert ("task_kappa/c" in record) == ("kappa" in record)
