"""A LoRA layer's low-rank term in one autograd function: y = W x + s B A dropout(x).

With peft's own forward, autograd keeps a dropped copy of x and the noise, both in float32, and draws the noise from
torch's serial generator. Here x itself is kept, which q, k and v share, and one byte a number for the mask, drawn by a
faster generator that torch's own seeds. The factors of dropout and LoRA go into products of rank r.

Gradients of A and B are always computed sample by sample and then summed. Whoever wants them (a measurement of noise)
gives `lora_A[adapter]` or `lora_B[adapter]` an attribute `per_sample`, and training stays the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from equipoise.models.stand_in import is_replaced, standing_in

#: How many values the random numbers behind a mask have.
VALUES = 1 << 16


class Recorder(Protocol):
    """Wants the gradients of each sample."""

    def take(self, parameter: nn.Parameter, gradients: torch.Tensor) -> None:
        """Called once for each backward through the layer.

        Args:
            parameter: of which they are the gradients.
            gradients: [S, *parameter.shape], of S samples, in the type of the products; not to be written to.
        """


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[int]:
    """Inside, the model's LoRA layers compute their low-rank term by `_LowRank`, where that is all they do.

    Args:
        model: with peft's layers; its parameters may not be divided over processes.

    Yields:
        How many layers.
    """
    found = [module for module in model.modules() if type(module) is LoraLinear and not is_replaced(module)]
    with ExitStack() as stack:
        for module in found:
            stack.enter_context(standing_in(module, partial(_forward, module, module.forward)))
        yield len(found)


def _forward(layer: Any, own: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """As peft's; by `_LowRank` if this call and the layer's state are plain."""
    adapter = _plain_adapter(layer)
    if adapter is None or args or kwargs or torch.compiler.is_compiling():
        return own(x, *args, **kwargs)
    result: torch.Tensor = layer.base_layer(x)
    down, up, dropout = (parts[adapter] for parts in (layer.lora_A, layer.lora_B, layer.lora_dropout))
    A_RI, B_OR = down.weight, up.weight
    x = layer._cast_input_dtype(x, A_RI.dtype)
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, A_RI, B_OR = x.to(dtype), A_RI.to(dtype), B_OR.to(dtype)
    mask, kept = dropout_mask(x, dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0)
    recorders = tuple((vars(part).get("per_sample"), part.weight) for part in (down, up))
    term = _LowRank.apply(x, A_RI, B_OR, mask, layer.scaling[adapter] / kept if kept else 0.0, recorders)
    return (result + term).to(result.dtype)


def _plain_adapter(layer: Any) -> str | None:
    """The name of the layer's adapter; None if it does anything that peft's forward must do."""
    if layer.disable_adapters or layer.merged or layer.fan_in_fan_out:
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(active) != 1 or active[0] in layer.lora_variant:
        return None
    name: str = active[0]
    down, up, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    plain = all(type(part) is nn.Linear and part.bias is None for part in (down, up))
    plain = plain and type(dropout) in (nn.Dropout, nn.Identity) and isinstance(layer.scaling[name], int | float)
    return name if plain and not any(_is_watched(part) for part in (down, up, dropout)) else None


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody's hook waits for a call of it; who records gradients by sample is served here without one."""
    recorder = vars(module).get("per_sample")
    calls = [
        hook
        for hook in module._forward_hooks.values()
        if recorder is None or getattr(hook, "__self__", None) is not recorder
    ]
    return is_replaced(module) or any(
        (calls, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    )


def dropout_mask(x: torch.Tensor, rate: float) -> tuple[torch.Tensor | None, float]:
    """What dropout keeps of x, and with which probability each number was kept.

    On a CPU the mask is made of 16 random bits a number, from numpy's SFC64, seeded by one number of torch's generator,
    which is serial itself. The probability is the multiple of 2^-16 nearest to 1 - rate; divided by that very
    multiple, dropout changes no expectation.

    Returns:
        The mask, of x's shape, and the probability; no mask where all is kept.
    """
    if rate == 0:
        return None, 1.0
    if x.device.type != "cpu":
        return torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1 - rate), 1 - rate
    threshold = round((1 - rate) * VALUES)
    if threshold == VALUES:
        return None, 1.0
    seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_())
    raw = np.random.SFC64(seed).random_raw((x.numel() + 3) // 4)
    numbers = raw.view(np.uint16)[: x.numel()]
    return torch.from_numpy(numbers < threshold).view(x.shape), threshold / VALUES


class _LowRank(torch.autograd.Function):
    """factor (x * mask) A^T B^T. Gradients cannot be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        A_RI: torch.Tensor,
        B_OR: torch.Tensor,
        mask: torch.Tensor | None,
        factor: float,
        recorders: tuple[tuple[Recorder | None, nn.Parameter], ...],
    ) -> torch.Tensor:
        h = functional.linear(_masked(x, mask), A_RI).mul_(factor)
        ctx.save_for_backward(x, A_RI, B_OR, mask, h)
        ctx.factor, ctx.recorders = factor, recorders
        return functional.linear(h, B_OR)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, A_RI, B_OR, mask, h = ctx.saved_tensors
        (gy,) = gradients
        needs_x, needs_A, needs_B, *_ = ctx.needs_input_grad
        recorder_A, recorder_B = ctx.recorders
        gx = gA = gB = None
        if needs_B:
            gB = _weight_gradient(gy, h, *recorder_B)
        if needs_x or needs_A:
            gh = (gy @ B_OR).mul_(ctx.factor)
        if needs_A:
            gA = _weight_gradient(gh, _masked(x, mask), *recorder_A)
        if needs_x:
            gx = gh @ A_RI
            if mask is not None:
                gx.mul_(mask.view(torch.int8))
        return gx, gA, gB, None, None, None


def _masked(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return x * mask.view(torch.int8) if mask is not None else x  # by bytes: torch multiplies by bool at half the speed


def _weight_gradient(
    outputs: torch.Tensor, inputs: torch.Tensor, recorder: Recorder | None, parameter: nn.Parameter
) -> torch.Tensor:
    """The gradient of a weight [O, I] from those of its outputs and its inputs; by samples where they are [S, T, .]."""
    if inputs.dim() != 3:
        return outputs.reshape(-1, outputs.shape[-1]).t() @ inputs.reshape(-1, inputs.shape[-1])
    each_SOI = torch.bmm(outputs.transpose(1, 2), inputs)
    if recorder is not None:
        recorder.take(parameter, each_SOI)
    return each_SOI.sum(dim=0)
