"""A small sample of the fuzzing (`python tests/fuzz/run.py` is all of it): no surface lets out anything but a line."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz._surface import Surface
from fuzz._surfaces import SURFACES
from fuzz._worker import _stop, run_cases

#: Those that draw pages take a tenth of a second a case.
FEW = {
    "checkpoint's settings": 8,
    "run folder: report, diagnose": 5,
    "balance folder: report, diagnose": 3,
    "comparison: report, tables": 3,
}


@pytest.fixture
def alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGPROF, _stop)
    yield
    signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_whatever_is_in_a_file_is_used_or_refused_with_a_line(
    surface: Surface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found = run_cases(surface, tmp_path, 1, FEW.get(surface.name, 30))
    assert not found.failures, "\n\n".join(found.failures)
    assert found.cases >= 3
    assert not (tmp_path / "pwned").exists()
