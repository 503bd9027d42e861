"""What every weighter has in common."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
SHORT_RUN = 1000  # steps; windows are shorter in shorter runs


class Weighter:
    """Gives each task a weight for the coming optimizer step. State is explicit; nothing here is random or timed
    beyond it, so that every rank that is told the same gives the same weights.

    The order of use: `weights` before a step's first micro-batch, as often as one likes, then `update` once after it.
    The weights enter Generic Task Weighting (`equipoise.tasks.loss`), which does not see a factor common to all. The
    tasks are those that the caller names: whether one without a score is among them is the caller's choice.

    The defaults are those of a weighter that has no state.

    Args:
        tasks: N names, in the order of every vector.
    """

    def __init__(self, tasks: Sequence[str]):
        self.tasks = tuple(tasks)

    def weights(self, tokens: Sequence[int] | NDArray[Any]) -> Vector:
        """lambda of the coming step, [N], positive; changes nothing.

        Args:
            tokens: supervised tokens of each task in the step, over all micro-batches and ranks, [N].
        """
        raise NotImplementedError

    def update(self, losses: Sequence[float] | NDArray[Any]) -> None:
        """Take note of a step's outcome.

        Args:
            losses: mean loss a token of each task over the whole step, unweighted, [N]; nan where a task was absent.
                Infinite ones (a step that overflowed) count as absent too.
        """

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores: numbers, and lists of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state."""


def scaled_window(window: int, total_steps: int | None) -> int:
    """A method's window for a run of this length.

    As it is in runs of 1,000 steps or more (or of unknown length); in proportion in shorter ones, rounded up, so that
    methods whose windows come from long runs have time to act: of 25 steps, 3 remain in a run of 100.
    """
    if total_steps is None or total_steps >= SHORT_RUN:
        return window
    return math.ceil(window * total_steps / SHORT_RUN)


def relative(loss: float, base: float) -> float:
    """loss / base, kept finite; 1, neither gain nor loss, where the base is 0."""
    return min(loss / base, sys.float_info.max) if base > 0 else 1.0
