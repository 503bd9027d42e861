"""A division and its coordinator follow parameters that were replaced after they were made."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import tiny
from equipoise.errors import PartitionError
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.shards import gathered, scattered
from equipoise.recipe import Coordination


def replace_parameters(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """As `fully_shard` and accelerate do it: other objects of the same values, in the optimizer too."""
    new = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            new[parameter] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            setattr(module, name, new[parameter])
    for group in optimizer.param_groups if optimizer is not None else ():
        group["params"] = [new[parameter] for parameter in group["params"]]


def test_a_division_follows_by_name_through_wrappers():
    model, division = tiny.toy()
    names = [name for name, _ in division.parameters()]
    assert not division.follow(model)
    replace_parameters(model)
    model.llm["layer"] = checkpoint_wrapper(model.llm["layer"])
    assert any("_checkpoint_wrapped_module" in name for name, _ in model.named_parameters())
    assert division.follow(model)
    assert [name for name, _ in division.parameters()] == names
    held = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in held for _, parameter in division.parameters())


def test_a_parameter_that_is_gone_is_named():
    model, division = tiny.toy()
    model.projector = nn.Identity()
    with pytest.raises(PartitionError, match=r"parameter projector\.weight of module projector is gone"):
        division.follow(model)


def test_a_coordinator_that_follows_measures_as_one_that_was_made_later():
    records = []
    for follows in (True, False):
        torch.manual_seed(0)
        model, division = tiny.toy()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        settings = Coordination("commit", estimator="exact", window=3)
        coordinator = Coordinator(model, optimizer, settings, division)
        if follows:
            replace_parameters(model, optimizer)
            coordinator.follow(model)
        records.append([tiny.train_step(model, optimizer, tiny.toy_step(s), coordinator) for s in range(3)])
    assert records[0] == records[1]
    assert "regulariser_norm/llm" in records[0][-1]


def test_whole_parameters_are_gathered_and_scattered_as_they_are():
    _, division = tiny.toy()
    parameters = dict(division.parameters())
    values = gathered(parameters)
    assert all(not value.requires_grad and torch.equal(value, parameters[name]) for name, value in values.items())
    assert gathered(parameters, keep=False) == {}
    tiny.assert_same(scattered(values, parameters), values)
