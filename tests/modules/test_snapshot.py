"""Parameters kept aside and swapped in for a moment."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from equipoise.modules.snapshot import extrapolate, holding, snapshot


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.randn(3)), "b": nn.Parameter(torch.randn(2, 2))}


def test_a_snapshot_does_not_follow_the_parameters(parameters):
    kept = snapshot(parameters)
    expected = parameters["a"].detach().clone()
    with torch.no_grad():
        parameters["a"].add_(1)
    assert torch.equal(kept["a"], expected)
    assert not kept["a"].requires_grad


def test_scale_one_gives_the_very_tensors_of_now(parameters):
    now = extrapolate(parameters, {name: torch.zeros_like(p) for name, p in parameters.items()}, 1.0)
    assert {n: v.data_ptr() for n, v in now.items()} == {n: p.data_ptr() for n, p in parameters.items()}


@pytest.mark.parametrize("scale", [0.25, 8.0])
def test_extrapolation_goes_that_many_steps_from_before(parameters, scale):
    before = {name: torch.randn_like(p) for name, p in parameters.items()}
    found = extrapolate(parameters, before, scale)
    for name, p in parameters.items():
        torch.testing.assert_close(found[name], before[name] + scale * (p.detach() - before[name]))


def test_holding_shows_other_values_and_gives_the_originals_back(parameters):
    places = {name: p.data_ptr() for name, p in parameters.items()}
    originals = snapshot(parameters)
    with holding(parameters, {"a": torch.ones(3), "b": torch.zeros(2, 2)}):
        assert torch.equal(parameters["a"], torch.ones(3))
        assert parameters["b"].requires_grad
    assert {name: p.data_ptr() for name, p in parameters.items()} == places
    assert all(torch.equal(p, originals[name]) for name, p in parameters.items())


def test_holding_gives_back_after_an_exception_inside(parameters):
    places = {name: p.data_ptr() for name, p in parameters.items()}
    with pytest.raises(RuntimeError, match="inside"), holding(parameters, snapshot(parameters)):
        raise RuntimeError("inside")
    assert {name: p.data_ptr() for name, p in parameters.items()} == places


def test_holding_gives_back_where_a_value_is_missing(parameters):
    places = {name: p.data_ptr() for name, p in parameters.items()}
    with pytest.raises(KeyError), holding(parameters, {"a": torch.ones(3)}):
        pass
    assert {name: p.data_ptr() for name, p in parameters.items()} == places
