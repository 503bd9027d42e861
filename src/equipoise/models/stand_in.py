"""A forward that stands for a module's own for a while."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

from torch import nn


class StandIn:
    """Stands for a module's forward. A copy of the model, as callbacks make of it, has the module's own again."""

    def __init__(self, forward: Callable[..., Any], own: Callable[..., Any]):
        self._forward, self._own = forward, own
        update_wrapper(self, own)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._own, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._own,)


@contextmanager
def standing_in(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, calls of the module go to `forward`; what was its forward before comes back."""
    before = vars(module).get("forward")
    module.forward = StandIn(forward, module.forward)
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def is_replaced(module: nn.Module) -> bool:
    """Whether a forward stands for that of the module's class: one of ours, or somebody's hook."""
    return "forward" in vars(module)


def _itself(value: Any) -> Any:
    return value
