"""scripts/audit.py: what is found fails, and where no service answers nothing passes for audited."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import audit

HOLE = {"id": "PYSEC-1", "fix_versions": ["3.0"]}
CONTROL = {"name": "jinja2", "version": "2.4.1", "vulns": [HOLE]}
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "jinja2", "version": "2.4.1", "skip_reason": "Dependency not found on PyPI"}

Services = Callable[..., None]


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    """Lets pip-audit print, by service, an answer about the control and one about the pins; no answer: it breaks."""

    def pretend(**answers: tuple[dict[str, Any], ...]) -> None:
        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            service = command[command.index("-s") + 1]
            about_pins = command[command.index("-r") + 1] == str(audit.PINS)
            found = answers.get(service, ())[about_pins : about_pins + 1]
            if not found:
                return subprocess.CompletedProcess(command, 1, "", "Traceback\nConnectionError: nobody")
            return subprocess.CompletedProcess(command, 0, json.dumps({"dependencies": list(found), "fixes": []}), "")

        monkeypatch.setattr(audit.subprocess, "run", run)

    return pretend


def test_nothing_found_is_a_pass_only_where_the_service_knows_its_matter(services: Services, capsys: Any) -> None:
    services(pypi=(CONTROL, CLEAN))
    assert audit.main(["--required"]) == 0
    assert capsys.readouterr().out == "audited by pypi: 1 packages\n"


def test_what_is_found_fails(services: Services, capsys: Any) -> None:
    services(osv=(CONTROL, {**CLEAN, "vulns": [HOLE]}))
    assert audit.main([]) == 1
    assert capsys.readouterr().out == "numpy 2.4.6: PYSEC-1, mended in 3.0\naudited by osv: 1 packages\n"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, "pypi: ConnectionError: nobody; osv: ConnectionError: nobody"),
        ({"pypi": (UNKNOWN, CLEAN)}, "pypi: Dependency not found on PyPI; osv: ConnectionError: nobody"),
        ({"osv": ({**CONTROL, "vulns": []}, CLEAN)}, "osv: it knows of no weakness in jinja2==2.4.1"),
        ({"osv": (CONTROL,)}, "osv: ConnectionError: nobody"),
    ],
)
def test_no_answer_is_said_and_is_no_pass(
    services: Services, capsys: Any, answers: dict[str, Any], reason: str
) -> None:
    services(**answers)
    assert audit.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("not audited: no answer (")
    assert reason in said
    assert audit.main(["--required"]) == 1
