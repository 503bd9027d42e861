"""An AdamW step taken back is where it came from, to within rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.partition import partition
from equipoise.modules.snapshot import snapshot
from equipoise.modules.undo import LastStep, can_undo
from equipoise.recipe import Coordination


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 2e-3)])
def test_it_is_where_it_came_from(dtype: torch.dtype, error: float, fused: bool) -> None:
    torch.manual_seed(0)
    parameters = {str(n): torch.nn.Parameter(torch.randn(40, 30, dtype=dtype)) for n in range(3)}
    groups = [
        {"params": [parameters["0"]], "lr": 1e-3, "weight_decay": 0.1},
        {"params": [parameters["1"], parameters["2"]], "lr": 3e-4, "betas": (0.8, 0.99)},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=fused)
    assert can_undo(optimizer)
    for step in range(5):
        for name, parameter in parameters.items():
            parameter.grad = torch.randn_like(parameter) if (name, step) != ("2", 4) else None
        before, coming = snapshot(parameters), LastStep.about_to_be(optimizer)
        optimizer.step()
        found = LastStep(**coming.state_dict()).undone(optimizer, parameters)
        for name, value in before.items():
            moved = parameters[name].detach() - value
            assert (found[name] - value).norm() <= error * moved.norm(), (step, name)
    assert torch.equal(found["2"], before["2"])
    assert not torch.equal(before["1"], parameters["1"])


@pytest.mark.parametrize(
    ("build", "options"),
    [(torch.optim.SGD, {}), (torch.optim.Adam, {}), (torch.optim.AdamW, {"amsgrad": True})],
)
def test_other_optimizers_are_not_undone(build: Any, options: dict[str, Any]) -> None:
    assert not can_undo(build([torch.nn.Parameter(torch.zeros(2))], lr=0.1, **options))


def test_in_16_bits_nothing_is_undone() -> None:
    assert not can_undo(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))]))


def run(undoes: bool) -> tuple[list[dict[str, float]], Coordinator]:
    torch.manual_seed(0)
    model = tiny.full_llava()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1)
    settings = Coordination("commit", estimator="sampled", every=2, theory=False)
    coordinator = Coordinator(model, optimizer, settings, partition(model))
    assert coordinator._undoes
    coordinator._undoes = undoes
    return [tiny.train_step(model, optimizer, tiny.llava_step(seed=n), coordinator) for n in range(4)], coordinator


def test_a_model_tuned_in_full_keeps_no_copy_and_regularises_alike() -> None:
    kept, _ = run(False)
    undone, coordinator = run(True)
    assert coordinator._previous is None
    assert coordinator.state_dict()["previous"] is None
    for one, other in zip(kept, undone, strict=True):
        assert one.keys() == other.keys()
        assert other == pytest.approx(one, rel=1e-6)
    assert kept[1]["regulariser_norm/llm"] > 0


def test_lora_keeps_its_copy() -> None:
    model = tiny.lora_llava()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    division = partition(model)
    division.modules["llm"].frozen *= 10
    assert not Coordinator(model, optimizer, Coordination("commit"), division)._undoes
