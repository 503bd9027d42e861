"""Parameters kept aside, and models that for a moment hold other parameters than their own.

Swapping exchanges storage pointers and restores the very tensors that were there, so nothing is rounded and nothing
is copied. Parameters that FSDP2 divides over processes are written to instead, this process's part of each
(`equipoise.modules.shards`). Swap only where no autograd graph is alive: between a forward and its backward it would
corrupt gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from equipoise.modules.shards import elementwise, is_divided, local

Values = dict[str, torch.Tensor]


def snapshot(parameters: Mapping[str, nn.Parameter]) -> Values:
    """Copy the parameters' values, by name."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def extrapolate(parameters: Mapping[str, nn.Parameter], before: Values, scale: float) -> Values:
    """Return before + scale * (now - before); at scale 1 the very tensors of now, copies of divided ones."""
    now = {name: parameter.detach() for name, parameter in parameters.items()}
    if scale == 1.0:
        return {name: value.clone() if is_divided(value) else value for name, value in now.items()}
    return {name: elementwise(partial(torch.lerp, weight=scale), before[name], value) for name, value in now.items()}


@contextmanager
def holding(parameters: Mapping[str, nn.Parameter], values: Values, copies: Values | None = None) -> Iterator[None]:
    """Let the parameters hold other values inside the block; whatever happens there, restore the originals.

    Args:
        parameters: by name.
        values: by name; their memory is the parameters' own inside, but for divided ones.
        copies: of the parameters as they stand, where there are any, so that none are made of divided ones.
    """
    whole = {name: parameter for name, parameter in parameters.items() if not is_divided(parameter)}
    parts = {name: local(parameter) for name, parameter in parameters.items() if is_divided(parameter)}
    originals = {name: parameter.data for name, parameter in whole.items()}
    kept = {name: local(copies[name]) if copies is not None else part.clone() for name, part in parts.items()}
    try:
        for name, parameter in whole.items():
            parameter.data = values[name]
        for name, part in parts.items():
            part.copy_(local(values[name]))
        torch.clear_autocast_cache()  # it holds low-precision copies of the values that were there
        yield
    finally:
        for name, parameter in whole.items():
            parameter.data = originals[name]
        for name, part in parts.items():
            part.copy_(kept[name])
        torch.clear_autocast_cache()
