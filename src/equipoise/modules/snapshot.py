"""Parameters kept aside, and models that for a moment hold other parameters than their own.

Swapping exchanges storage pointers and restores the very tensors that were there, so nothing is rounded and nothing
is copied. Swap only where no autograd graph is alive: between a forward and its backward it would corrupt gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

Values = dict[str, torch.Tensor]


def snapshot(parameters: Mapping[str, nn.Parameter]) -> Values:
    """Copy the parameters' values, by name."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def extrapolate(parameters: Mapping[str, nn.Parameter], before: Values, scale: float) -> Values:
    """Return before + scale * (now - before); at scale 1 the very tensors of now."""
    if scale == 1.0:
        return {name: parameter.detach() for name, parameter in parameters.items()}
    return {name: torch.lerp(before[name], parameter.detach(), scale) for name, parameter in parameters.items()}


@contextmanager
def holding(parameters: Mapping[str, nn.Parameter], values: Values) -> Iterator[None]:
    """Let the parameters hold other values inside the block; whatever happens there, restore the originals."""
    originals = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = values[name]
        torch.clear_autocast_cache()  # it holds low-precision copies of the values that were there
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = originals[name]
        torch.clear_autocast_cache()
