"""What a fuzzed surface is, and how one case of it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from equipoise.errors import EquipoiseError

Check = Callable[[Any], None]
#: How cases are made, and what is done with one.
Cases = tuple[st.SearchStrategy[Any], Check]


@dataclass(frozen=True)
class Surface:
    """One way by which somebody else's content gets in.

    Attributes:
        name: in the table.
        share: of the cases, relative to the others'.
        module, function: of this folder, imported where it is run alone: some need seconds. Called once a process with
            a folder, it returns the cases, and what is done with one: that returns where the content is accepted,
            raises an EquipoiseError where it is refused, and an AssertionError where it is accepted and should not be,
            or is shown as it should not be.
        seconds: of its process, that a case may take.
    """

    name: str
    share: float
    module: str
    function: str
    seconds: float = 20.0

    def prepare(self, folder: Path) -> Cases:
        """What its function returns."""
        cases: Cases = getattr(import_module(f"fuzz.{self.module}"), self.function)(folder)
        return cases


@dataclass
class Outcome:
    """What became of some cases.

    Attributes:
        failures: of the first few, what was raised and the case.
    """

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    tracebacks: int = 0
    hangs: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)


def one_line(message: str) -> None:
    """Check what a user is told: one line, of a length that can be read, that does nothing to a terminal."""
    from equipoise.texts import printable

    assert message.strip(), "a refusal says nothing"
    assert len(message) < 5_000, f"a refusal of {len(message)} letters"
    assert len(printable(message).splitlines()) == 1


def names(error: EquipoiseError, file: Path) -> None:
    """Check that a refusal says which file is meant."""
    assert str(file) in str(error), f"a refusal does not name the file: {error}"
