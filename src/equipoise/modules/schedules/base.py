"""What every schedule has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.modules.partition import ModuleParameters


class Schedule:
    """Gives each module a factor on its learning rate, and says which modules wait. State is explicit.

    The defaults are those of a schedule that neither measures nor changes anything.
    """

    def __init__(self, modules: Sequence[str]):
        self.modules = tuple(modules)

    #: Whether the schedule acts on measurements (and so cannot do without them).
    needs_measurement: bool = False

    def factors(self) -> dict[str, float]:
        """What multiplies each module's learning rate at the coming step."""
        return dict.fromkeys(self.modules, 1.0)

    def waiting(self) -> frozenset[str]:
        """Modules that do not move at the coming step: no gradient, no weight decay, no optimizer state."""
        return frozenset()

    def measured(self, averages: Mapping[str, float]) -> None:
        """Take note of the window's averages d~_m after a usable measurement."""

    def skipped(self) -> None:
        """Take note of a measurement that could not be used."""

    def stepped(self, parameters: Mapping[str, ModuleParameters]) -> None:
        """Take note of an optimizer step; the parameters hold its result."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores: tensors, numbers, and containers of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state."""
