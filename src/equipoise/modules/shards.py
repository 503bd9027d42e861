"""Parameters that FSDP2 (`fully_shard`) divides over processes: DTensors, of which each process holds a shard.

A measurement changes shards in place: FSDP2 gathers from the very storage that a parameter had when it was divided,
so that an exchanged pointer would go unseen. What was gathered before is dropped first. Nothing here gathers more than
one parameter at a time; the forwards gather what they always gather.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from equipoise.errors import PartitionError


def is_divided(tensor: torch.Tensor) -> bool:
    """Whether each process holds a part of it."""
    loaded = sys.modules.get("torch.distributed.tensor")  # slow to import; who has a DTensor has imported it
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def local(tensor: Any) -> torch.Tensor:
    """This process's part of a divided tensor, sharing its memory; any other tensor as it is."""
    if not is_divided(tensor):
        return tensor
    with torch.no_grad():
        return tensor.detach().to_local()


def elementwise(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """`function` of tensors that are divided alike, or not at all; part by part, and divided as they are."""
    first: Any = tensors[0]
    found = function(*map(local, tensors))
    return _divided_as(first, found) if is_divided(first) else found


def _divided_as(other: Any, part: torch.Tensor) -> torch.Tensor:
    return type(other).from_local(
        part, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride()
    )


def square_sum(tensors: Sequence[Any]) -> float:
    """Of all numbers of divided tensors together, over their processes; the same on each of them to the bit."""
    total = 0.0
    alike: dict[Any, list[Any]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.device_mesh, tensor.placements, tensor.dtype), []).append(local(tensor))
    for (mesh, placements, dtype), parts in alike.items():
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        own = torch.stack(torch._foreach_norm(parts, 2.0, precise)).double().square().sum()
        own = own.to(mesh.device_type)  # where the processes can talk, also of parameters kept in main memory
        copies = 1
        for dimension, placement in enumerate(placements):
            torch.distributed.all_reduce(own, group=mesh.get_group(dimension))
            copies *= 1 if placement.is_shard() else mesh.size(dimension)
        total += own.item() / copies
    return total


# ---------------------------------------------------------------------- the model


def fsdp_modules(model: nn.Module) -> list[Any]:
    """The modules that `fully_shard` was applied to, outer ones first."""
    loaded = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(loaded, "FSDPModule", None)
    return [] if kind is None else [module for module in model.modules() if isinstance(module, kind)]


def reshard(model: nn.Module) -> None:
    """Drop what forwards have gathered, so that the next one gathers parameters as they are then."""
    for module in fsdp_modules(model):
        module.reshard()


def recover(model: nn.Module) -> None:
    """Bring a model whose forward was broken off to where it was between steps."""
    covered: set[nn.Module] = set()
    for module in fsdp_modules(model):
        if module not in covered:  # of the outermost alone
            module.reset_iter_state()
            covered.update(module.modules())


def require_known(model: nn.Module, parameters: Iterable[tuple[str, nn.Parameter]], processes: int) -> None:
    """Refuse parameters that something else than FSDP2 divides, or that others hold parts of who do not measure too.

    Raises:
        PartitionError: naming the first.
    """
    managed: dict[int, _Managed] | None = None
    for name, parameter in parameters:
        if is_divided(parameter):
            managed = _managed(model) if managed is None else managed
            if id(parameter) not in managed:
                raise PartitionError(
                    f"parameter {name} is divided over processes, and not by fully_shard; drifts are measured with "
                    "whole parameters (DDP) or FSDP2's"
                )
            if managed[id(parameter)].mesh.size() != processes:
                raise PartitionError(
                    f"parameter {name} is divided over {managed[id(parameter)].mesh.size()} processes, and {processes} "
                    "measure together: give the Coordinator all of them (processes=)"
                )


class _Managed(NamedTuple):
    """What FSDP2 knows of a divided parameter: over which processes, and what it divides summed gradients by."""

    mesh: Any
    divisor: float


def _managed(model: nn.Module) -> dict[int, _Managed]:
    """By identity of the parameters that FSDP2 divides."""
    found = {}
    for module in fsdp_modules(model):
        for group in module._get_fsdp_state()._fsdp_param_groups:
            mesh = group.mesh_info.mesh
            own = _Managed(mesh, float(group.gradient_divide_factor or mesh.size()))
            found.update({id(parameter.sharded_param): own for parameter in group.fsdp_params})
    return found


def gradients_of(
    loss: torch.Tensor,
    wanted: Mapping[str, nn.Parameter],
    learning: Iterable[tuple[str, nn.Parameter]],
    model: nn.Module,
    retain_graph: bool = False,
) -> dict[str, torch.Tensor | None]:
    """Gradients of a loss, by name; `grad` of all parameters is left as found.

    Of a whole parameter that of this process's loss; of a divided one that of the sum of all processes' losses, for
    a backward through FSDP2 sums them on its way. That takes a `backward()`: the graph holds gathered copies, and
    `autograd.grad` knows nothing of the parameters that they are of.

    Args:
        loss: of this process; each process has one, and calls this.
        wanted: of which parameters.
        learning: all that learn, with their names.
        model: that the loss is of.
        retain_graph: whether another backward follows.
    """
    whole = {name: parameter for name, parameter in wanted.items() if not is_divided(parameter)}
    divided = {name: parameter for name, parameter in wanted.items() if is_divided(parameter)}
    found: dict[str, torch.Tensor | None] = {}
    if whole:
        keeps = retain_graph or bool(divided)
        own = torch.autograd.grad(loss, list(whole.values()), retain_graph=keeps, allow_unused=True)
        found.update(zip(whole, own, strict=True))
    if divided:
        managed = _managed(model)
        kept = [(parameter, parameter.grad) for _, parameter in learning]
        try:
            for parameter, _ in kept:
                parameter.grad = None
            loss.backward(retain_graph=retain_graph)
            found.update({name: parameter.grad for name, parameter in divided.items()})
        finally:
            for parameter, gradient in kept:
                parameter.grad = gradient
        for name, parameter in divided.items():
            gradient = found[name]
            if gradient is not None:
                local(gradient).mul_(managed[id(parameter)].divisor)
    return found


# ---------------------------------------------------------------------- state


def gathered(values: Mapping[str, torch.Tensor], keep: bool = True) -> dict[str, torch.Tensor]:
    """Whole values on the CPU, one gathered after the other; every process calls this.

    Args:
        keep: off where only another process wants them.
    """
    found = {}
    for name, value in values.items():
        part: Any = value.detach()
        whole = part.full_tensor() if is_divided(part) else part
        if keep:
            found[name] = whole.cpu()
    return found


def scattered(values: Mapping[str, torch.Tensor], parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """`gathered` values again as parameters lie: on their devices, and of divided ones this process's part.

    Those that lie so already are given back.
    """
    return {name: _laid_out(value, parameters[name]) for name, value in values.items()}


def _laid_out(value: torch.Tensor, parameter: Any) -> torch.Tensor:
    if is_divided(value):
        return value
    if not is_divided(parameter):
        return value.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    own: Any = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return _divided_as(parameter, own.to_local().to(local(parameter).device, copy=True))
