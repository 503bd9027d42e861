"""Constant learning rates: the paper's baseline, and its two one-sided variants."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.modules.schedules.base import Schedule

RAISE = 10.0  # Encoder LR up and Language LR up train one side at 1e-3 where the other has 1e-4 (CoMMIT, section 5)


class Constant(Schedule):
    """Factor 1 for every module, or 10 for the `raised` ones.

    Args:
        modules: names of the modules that learn.
        raised: modules at ten times the base learning rate.
    """

    def __init__(self, modules: Sequence[str], raised: Sequence[str] = ()):
        super().__init__(modules)
        self.raised = frozenset(raised)

    def factors(self) -> dict[str, float]:
        return {name: RAISE if name in self.raised else 1.0 for name in self.modules}
