"""An optimizer's last step taken back from its own state, instead of a copy of every parameter kept through the next.

Between two steps the regulariser needs theta_{t-1} beside theta_t. With LoRA a copy is megabytes; of a model that is
tuned in full it is the model once more, while activations are alive. AdamW's step is a function of what its state
still holds:

    theta_{t-1} = (theta_t + rate / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)) / (1 - rate * decay).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from equipoise.modules.shards import elementwise
from equipoise.modules.snapshot import Values

#: Types whose step is AdamW's; subclasses may do more.
KNOWN = (torch.optim.AdamW,)
PRECISE = (torch.float32, torch.float64)


def can_undo(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the last step can be taken back to within rounding.

    In 16 bits it cannot: a step is hardly larger than the rounding of the weights.
    """
    return type(optimizer) in KNOWN and all(
        not group["amsgrad"] and not group["maximize"] and all(p.dtype in PRECISE for p in group["params"])
        for group in optimizer.param_groups
    )


@dataclass(frozen=True)
class LastStep:
    """What an optimizer's state does not say of its last step.

    Attributes:
        rates: the learning rate of each parameter group in that step.
        still: (group, number in it) of the parameters that had no gradient, which the optimizer left alone.
    """

    rates: list[float]
    still: list[tuple[int, int]]

    @classmethod
    def about_to_be(cls, optimizer: torch.optim.Optimizer) -> LastStep:
        """Of the step that comes next; gradients and learning rates are set."""
        groups = optimizer.param_groups
        still = [
            (number, place)
            for number, group in enumerate(groups)
            for place, parameter in enumerate(group["params"])
            if parameter.grad is None
        ]
        return cls([float(group["lr"]) for group in groups], still)

    def undone(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> Values:
        """What the parameters were before that step, by name.

        Args:
            optimizer: that `can_undo`; no step since.
            parameters: by name; of the optimizer's.
        """
        of: dict[int, tuple[dict[str, Any], float]] = {}
        left_alone = {tuple(place) for place in self.still}
        for number, (group, rate) in enumerate(zip(optimizer.param_groups, self.rates, strict=True)):
            for place, parameter in enumerate(group["params"]):
                if (number, place) not in left_alone:
                    of[id(parameter)] = group, rate
        values: Values = {}
        for name, parameter in parameters.items():
            now = parameter.detach()
            if id(parameter) not in of:
                values[name] = now
                continue
            (group, rate), state = of[id(parameter)], optimizer.state[parameter]
            (beta1, beta2), count = group["betas"], float(state["step"])
            undo = partial(
                _undone, bias=1 - beta2**count, eps=group["eps"], rate=rate / (1 - beta1**count),
                decay=1 - rate * group["weight_decay"],
            )  # fmt: skip
            values[name] = elementwise(undo, now, state["exp_avg"], state["exp_avg_sq"])
        return values

    def state_dict(self) -> dict[str, Any]:
        """Plain data, from which `LastStep(**...)` is the same again."""
        return {"rates": list(self.rates), "still": list(self.still)}


def _undone(
    now: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, bias: float, eps: float, rate: float, decay: float
) -> torch.Tensor:
    denominator = (square / bias).sqrt_().add_(eps)
    return torch.addcdiv(now, mean, denominator, value=rate).div_(decay)
