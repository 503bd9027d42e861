"""What the tests of fast paths share: a small LoRA model, its output and gradients, and how far two such lie apart."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

WIDTHS = (64, 96, 64)


def lora_model(
    dtype: torch.dtype = torch.float64, dropout: float = 0.0, biases: bool = False, **settings: Any
) -> PeftModel:
    """Two LoRA layers, the first or both with a bias, in training mode; B is not zero."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(WIDTHS[0], WIDTHS[1]), nn.GELU(), nn.Linear(WIDTHS[1], WIDTHS[2], bias=biases))
    config = LoraConfig(r=4, lora_alpha=6, lora_dropout=dropout, target_modules=["0", "2"], **settings)
    model = get_peft_model(layers, config).to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return model.train()


def rows(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    """Numbers to put in."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def output_and_gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a loss that weighs every output otherwise; parameters that do not learn have none."""
    x = x.detach().clone().requires_grad_()
    model.zero_grad()
    output = model(x)
    output.float().mul(torch.linspace(-1, 2, output.numel()).view(output.shape)).sum().backward()
    assert x.grad is not None
    learnt = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"output": output.detach(), "x": x.grad, **learnt}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest relative difference of norms."""
    assert one.keys() == other.keys()
    return max(((one[name] - other[name]).norm() / other[name].norm()).item() for name in one)


def identical(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether they are equal to the last bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)
