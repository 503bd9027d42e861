"""Numbers at the edge of what floats hold, or beyond, in what balance between modules computes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tiny
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.drift import Drifts, TheoryTerms, kl_divergence
from equipoise.modules.partition import ModuleParameters, Partition, partition, split_param_groups
from equipoise.modules.regulariser import apply_regulariser
from equipoise.modules.schedules import Servo
from equipoise.modules.theory import report
from equipoise.recipe import Coordination


def toy_run(settings: Coordination, rates: dict[str, float] | None = None):
    model, division = tiny.toy()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    split_param_groups(optimizer, division, rates or {})
    return model, optimizer, Coordinator(model, optimizer, settings, division)


# ---------------------------------------------------------------------------------------------- drift


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_that_comes_from_nowhere_has_a_finite_drift(dtype):
    """expm1 of how much its log-probability rose overflows; the KL does not."""
    far = 1000.0 if dtype == torch.float64 else 120.0
    old, new = (torch.log_softmax(torch.tensor([row], dtype=dtype), -1) for row in ([0.0, -far, 0.0], [-far, 0.0, 0.0]))
    assert kl_divergence(old, new).item() == pytest.approx(far / 2, rel=1e-2)
    rows = torch.cat([old, old]), torch.cat([new, old])
    assert kl_divergence(*rows).tolist() == pytest.approx([kl_divergence(old, new).item(), 0.0])


def test_a_spike_leaves_the_window_after_n_measurements_and_factors_stay_bounded():
    torch.manual_seed(0)
    model, optimizer, coordinator = toy_run(Coordination("commit-clr", estimator="exact", window=3, min_factor=0.1))
    for step in range(8):
        batches = tiny.toy_step(step)
        if step == 3:
            for batch in batches:
                batch["pixel_values"] *= 1e6
        record = tiny.train_step(model, optimizer, batches, coordinator)
        assert "steps_skipped" not in record
        assert all(0.1 <= record[f"lr_factor/{name}"] <= 1.9 for name in ("projector", "llm"))
        assert math.isfinite(record["kappa_average"])
    assert [step for step, _ in coordinator.window.state_dict()["measurements"]] == [6, 7, 8]


# ---------------------------------------------------------------------------------------------- standing still


def test_a_module_whose_rate_is_0_leaves_no_balance_to_measure_and_no_factor_moves(caplog):
    model, optimizer, coordinator = toy_run(Coordination("commit", estimator="exact", window=3), {"projector": 0.0})
    before = model.projector.weight.detach().clone()
    for step in range(8):
        record = tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)
        assert record["drift/projector"] == 0
        assert record["drift/llm"] > 0
        assert "kappa" not in record
        assert record["measurements_skipped"] == step + 1
        assert record["lr_factor/llm"] == record["lr_factor/projector"] == 1
    assert torch.equal(model.projector.weight, before)
    assert coordinator.window.averages() is None
    assert len([r for r in caplog.records if "no balance measured" in r.message]) == 1


def test_a_module_whose_gradients_vanish_takes_no_gradient_from_the_regulariser():
    """The cap is a share of the loss gradient; without one, nothing is left of the drift's."""
    weight, drift = nn.Parameter(torch.ones(3)), torch.full((3,), 5.0)
    weight.grad = torch.zeros(3)
    division = Partition({"llm": ModuleParameters("llm", {"w": weight})})
    assert apply_regulariser(division, {"llm": {"w": drift}}, cap=1.0) == {"llm": pytest.approx(5 * 3**0.5)}
    assert weight.grad.tolist() == [0, 0, 0]
    apply_regulariser(division, {"llm": {"w": drift}}, cap=None)  # the paper's own form revives it
    assert weight.grad.tolist() == [-5, -5, -5]


@pytest.mark.parametrize(("weight", "size"), [(1e30, 1e15), (1e200, 1.0), (1.0, 1e35)])
def test_a_regulariser_beyond_float32_is_left_out(weight, size):
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    division = Partition({"llm": ModuleParameters("llm", {"w": parameter})})
    apply_regulariser(division, {"llm": {"w": torch.full((3,), size)}}, weight=weight, cap=None)
    assert parameter.grad.tolist() == [1, 1, 1]


# ---------------------------------------------------------------------------------------------- what is kept for ever


def test_an_infinite_loss_does_not_become_the_largest_ratio_for_ever():
    def found(loss: float) -> tuple[dict[str, float], float]:
        terms = TheoryTerms(loss_before=1.0, loss_after=loss, reversed_joint=0.5, reversed_by_module={"a": 1.0})
        return report(Drifts({"llm": 1.0, "projector": 1.0}, 1, 0.0, theory=terms), "projector", {}, 3.0)

    assert found(math.inf)[1] == found(math.nan)[1] == 3.0
    assert found(11.0)[1] == 20.0


def test_one_bad_measurement_does_not_give_up_amplification():
    settings = Coordination("constant", estimator="exact", amplification=8.0, window=1)
    model, optimizer, coordinator = toy_run(settings)
    for group in optimizer.param_groups:
        group["lr"] = 1e-5
    spoils = [False]

    def spoil(module: nn.Module, _: tuple, output: SimpleNamespace) -> None:
        if spoils[0] and not module.training:
            output.logits[..., 0] = math.nan

    model.register_forward_hook(spoil)
    tiny.train_step(model, optimizer, tiny.toy_step(0), coordinator)
    assert coordinator.amplification == 8.0
    spoils[0] = True
    assert "kappa" not in tiny.train_step(model, optimizer, tiny.toy_step(1), coordinator)
    spoils[0] = False
    assert coordinator.amplification == 8.0
    assert tiny.train_step(model, optimizer, tiny.toy_step(2), coordinator)["kappa"] > 0


def test_amplification_of_which_nothing_is_finite_is_given_up():
    settings = Coordination("constant", estimator="exact", amplification=1e6, window=1)
    model, optimizer, coordinator = toy_run(settings)

    def overflow(module: nn.Module, _: tuple, output: SimpleNamespace) -> None:
        if module.llm["head"].weight.abs().max() > 100:
            output.logits[..., 0] = math.nan

    model.register_forward_hook(overflow)
    assert tiny.train_step(model, optimizer, tiny.toy_step(0), coordinator)["kappa"] > 0
    assert coordinator.amplification < 100


def test_a_servo_that_never_sees_equal_drifts_keeps_its_factors_positive():
    """Without a smallest factor, the paper's mode, an exponential would underflow to 0 and its logarithm raise."""
    servo = Servo(("projector", "llm"), window=1, gain=0.9)
    for _ in range(50):
        servo.measured({"projector": 1e-12, "llm": 1e30})
    factors = servo.factors()
    assert 0 < factors["llm"] < 1e-300
    assert factors["projector"] == pytest.approx(2)
    servo.measured({"projector": 1.0, "llm": 1e-10})
    assert servo.factors()["llm"] > factors["llm"]


def test_batch_statistics_of_a_step_that_is_not_made_are_those_before_it():
    model = tiny.Toy()
    division = partition(model, tiny.TOY_PATTERNS)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    coordinator = Coordinator(model, optimizer, Coordination("constant", measure=False), division)
    tiny.train_step(model, optimizer, tiny.toy_step(0), coordinator)
    before = tiny.values_of(model)
    batches = tiny.toy_step(1)
    batches[0]["pixel_values"][0, 0] = math.inf
    tiny.train_step(model, optimizer, batches, coordinator)
    tiny.assert_same(tiny.values_of(model), before)
