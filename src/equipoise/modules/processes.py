"""Several processes, each with batches of its own, that must find the same numbers: what measuring needs of them.

Nothing here knows how processes talk to each other; `equipoise.training.processes` does. What every process adds up in
the same order is the same on all to the bit, and so is whatever is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import nn

from equipoise.modules.snapshot import Values


class Processes(Protocol):
    """Processes that train one model. All of them make the same calls in the same order.

    Attributes:
        count: how many.
        number: which of them this one is, from 0.
    """

    count: int
    number: int

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Everybody's numbers, in float64, process by process; as many as each likes."""

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Let each tensor be the sum of everybody's, in place and the same on all to the bit.

        Args:
            tensors: as many, of the same shapes and types, as everybody gives.
        """


class Alone:
    """One process."""

    count = 1
    number = 0

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Its own numbers."""
        return [list(numbers)]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """They are that already."""


ALONE = Alone()


def share(processes: Processes, count: int) -> int:
    """How many of so many samples each process takes: as many as the others, and one at least."""
    return -(-count // processes.count)


def add_gradients(processes: Processes, gradients: Values, parameters: Mapping[str, nn.Parameter]) -> Values:
    """The sums over processes of gradients by name, of those parameters that any process has one for.

    Args:
        gradients: this process's; may be changed.
        parameters: all that could have one.
    """
    if processes.count == 1:
        return gradients
    whole = {name: gradients[name] if name in gradients else torch.zeros_like(p) for name, p in parameters.items()}
    example = next(iter(whole.values()))
    owners = torch.tensor([name in gradients for name in whole], dtype=example.dtype, device=example.device)
    processes.add_up([*(value.detach() for value in whole.values()), owners])
    return {name: value for (name, value), count in zip(whole.items(), owners.tolist(), strict=True) if count}
