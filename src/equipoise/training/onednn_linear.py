"""Linear layers by oneDNN, on CPUs where torch multiplies by MKL and MKL is slow.

torch's F.linear multiplies float32 matrices by MKL, which leaves AVX-512 unused on an AMD processor. oneDNN, also part
of torch, takes half the time for the same sums in another order: one product forwards, one backwards for the input, and
one for the weight where that learns.

Whether to is decided by what the processor is, never by timing: a probe that turned out the other way on another day
would break runs that resume bit for bit.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from equipoise.models.stand_in import is_replaced, standing_in

#: Fewer rows than this, or fewer inputs or outputs, take as long either way.
FEWEST_ROWS = 8
NARROWEST = 64
CPU_FACTS = Path("/proc/cpuinfo")


@contextmanager
def onednn_linears(model: nn.Module) -> Iterator[int]:
    """Inside, the model's float32 `nn.Linear`s on a CPU multiply by oneDNN, where that is faster.

    Args:
        model: its parameters may not be divided over processes.

    Yields:
        How many layers.
    """
    layers = (module for module in model.modules() if type(module) is nn.Linear)
    found = [layer for layer in layers if _may_stand(layer)] if is_faster() else []
    with ExitStack() as stack:
        for module in found:
            stack.enter_context(standing_in(module, partial(_forward, module)))
        yield len(found)


@cache
def is_faster() -> bool:
    """Whether oneDNN is much faster here than what F.linear takes; always the same on one machine.

    Measured on a Zen 5: 2.1 to 2.6 times as fast from a hundred rows on. Held down to AVX2 the gain is 1.2 there, which
    is not worth other rounding; on Intel's processors MKL is at home.
    """
    has_op = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return has_op and wide and torch.backends.mkl.is_available() and _is_amd()


def _is_amd() -> bool:
    try:
        text = CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        text = platform.processor()
    return "AuthenticAMD" in text


def _may_stand(layer: nn.Linear) -> bool:
    return not is_replaced(layer) and _is_plain_float32(layer) and min(layer.weight.shape) >= NARROWEST


def _is_plain_float32(module: nn.Linear) -> bool:
    """Whether its numbers are float32 and lie whole in main memory, in tensors of no other class."""
    return all(
        type(value.data) is torch.Tensor and value.dtype == torch.float32 and value.device.type == "cpu"
        for value in (module.weight, module.bias)
        if value is not None
    )


def _forward(module: nn.Linear, input: torch.Tensor) -> torch.Tensor:
    """As F.linear; by oneDNN if nothing speaks against it."""
    fits = (
        type(input) is torch.Tensor
        and input.dtype == torch.float32
        and input.device.type == "cpu"
        and input.numel() >= FEWEST_ROWS * module.in_features
        and input.shape[-1] == module.in_features
    )
    special = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not torch.backends.mkldnn.enabled
    if not fits or special or not _is_plain_float32(module):
        return functional.linear(input, module.weight, module.bias)
    # Laid out and cut outside of the function: nobody may write to a view that one returns.
    *outer, width = input.shape
    rows_NI = input.reshape(-1, width)
    output_NO: torch.Tensor = _Product.apply(rows_NI, module.weight, module.bias)
    return output_NO[: rows_NI.shape[0]].view(*outer, -1)


class _Product(torch.autograd.Function):
    """x W^T + b of rows [N, I]: [N or more, O], what follows the first N being of rows of zeros."""

    @staticmethod
    def forward(ctx: Any, rows_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        # As they came: layers that read the same rows share them.
        ctx.save_for_backward(rows_NI if ctx.needs_input_grad[1] else None, weight_OI)
        ctx.count = rows_NI.shape[0]
        return _multiply(_padded(rows_NI), weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        rows_NI, weight_OI = ctx.saved_tensors
        needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        (gradient_NO,) = gradients
        # Transposed views are read as they lie. These products can be differentiated again.
        return (
            _Product.apply(gradient_NO, weight_OI.t(), None)[: ctx.count] if needs_rows else None,
            _Product.apply(gradient_NO.t(), _padded(rows_NI).t(), None)[: weight_OI.shape[0]] if needs_weight else None,
            gradient_NO.sum(dim=0) if needs_bias else None,
        )


def _padded(rows_NI: torch.Tensor) -> torch.Tensor:
    """oneDNN makes and keeps code for each shape it meets, half a megabyte, so N is rounded up."""
    padding = -rows_NI.shape[0] % _step(rows_NI.shape[0])
    return torch.cat([rows_NI, rows_NI.new_zeros(padding, rows_NI.shape[1])]) if padding else rows_NI


def _multiply(rows_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    """By oneDNN, [N, O]."""
    output_NO: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows_NI, weight_OI, bias_O, "none", [], "")
    return output_NO


def _step(count: int) -> int:
    """What a number of rows is rounded up to a multiple of: 8, or the power of two that is at most an eighth of it."""
    return max(FEWEST_ROWS, 1 << max(count.bit_length() - 4, 0))
