"""The regulariser: `look_back`'s drifts and gradients against autograd on deep copies, and how gradients are joined."""

from __future__ import annotations

import bruteforce
import pytest
import torch
from torch import nn

import tiny
from equipoise.modules.drift import look_back
from equipoise.modules.forward import RandomState
from equipoise.modules.partition import ModuleParameters, Partition, partition
from equipoise.modules.regulariser import apply_regulariser
from equipoise.modules.snapshot import Values, snapshot


def trained(model: nn.Module, division: Partition, batches: list[tiny.Batch]) -> tuple[Values, list[RandomState]]:
    """Make one optimizer step, then the next step's forwards and backwards; theta_{t-1} and the forwards' states."""
    previous = snapshot(dict(division.parameters()))
    parameters = [p for p in model.parameters() if p.requires_grad]
    tiny.train_step(model, torch.optim.AdamW(parameters, lr=3e-3), batches)
    model.zero_grad()
    states = []
    for batch in batches:
        states.append(RandomState())
        model(**batch).loss.backward()
    return previous, states


@pytest.mark.parametrize("kind", tiny.LLAVAS)
def test_look_back_equals_autograd_on_copies_under_the_same_dropout(kind):
    build, patterns = tiny.LLAVAS[kind]
    model, batches = build(), tiny.llava_step()
    division = partition(model, patterns)
    previous, states = trained(model, division, batches)

    drifts, gradients = look_back(model, division, previous, batches, states)

    assert drifts.samples == 6
    for name in division.trainable:
        own = tiny.names_of(model, name)
        expected_drift, expected = bruteforce.look_back(model, previous, own, batches, [s.cpu for s in states])
        assert drifts.by_module[name] == pytest.approx(expected_drift, rel=1e-9), name
        assert gradients[name].keys() == expected.keys()  # its own parameters and no others
        for parameter, gradient in expected.items():
            torch.testing.assert_close(gradients[name][parameter], gradient, rtol=1e-8, atol=1e-12)
        assert max(gradient.abs().max() for gradient in expected.values()) > 1e-4


def test_the_masks_are_those_of_the_training_forward():
    """Under other masks the drifts are others, so that the test above does compare masks."""
    model, batches = tiny.lora_llava(), tiny.llava_step()
    division = partition(model)
    previous, states = trained(model, division, batches)
    right, _ = look_back(model, division, previous, batches, states)
    wrong, _ = look_back(model, division, previous, batches, [RandomState() for _ in states])
    for name, drift in right.by_module.items():
        assert wrong.by_module[name] != pytest.approx(drift, rel=1e-6)


def test_look_back_leaves_gradients_weights_and_random_state():
    model, batches = tiny.lora_llava(), tiny.llava_step()
    division = partition(model)
    previous, states = trained(model, division, batches)
    gradients = {name: p.grad.clone() for name, p in division.parameters()}
    values, random_state = tiny.values_of(model), torch.get_rng_state()

    look_back(model, division, previous, batches, states)

    tiny.assert_same(gradients, {name: p.grad for name, p in division.parameters()})
    tiny.assert_same(values, tiny.values_of(model))
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.parametrize("tower_learns", [False, True], ids=["frozen tower", "tower learns"])
def test_look_back_through_batch_norm_leaves_its_statistics(tower_learns):
    model, division = tiny.toy(tower_learns)
    batches = tiny.toy_step(0, sizes=(3, 4))
    previous, states = trained(model, division, batches)
    values = tiny.values_of(model)

    drifts, gradients = look_back(model, division, previous, batches, states)

    tiny.assert_same(values, tiny.values_of(model))
    for name in division.trainable:
        own = [n for n, p in model.named_parameters() if n.startswith(name) and p.requires_grad]
        expected_drift, expected = bruteforce.look_back(model, previous, own, batches, [s.cpu for s in states])
        assert drifts.by_module[name] == pytest.approx(expected_drift, rel=1e-9), name
        for parameter, gradient in expected.items():
            torch.testing.assert_close(gradients[name][parameter], gradient, rtol=1e-8, atol=1e-12)


def test_unsupervised_micro_batches_are_left_out():
    model, batches = tiny.lora_llava(), [tiny.llava_batch((2, 0, 3)), tiny.llava_batch((0, 0), seed=1)]
    division = partition(model)
    previous, states = trained(model, division, batches)
    drifts, _ = look_back(model, division, previous, batches, states)
    expected, _ = bruteforce.look_back(
        model, previous, tiny.names_of(model, "llm"), batches, [s.cpu for s in states]
    )  # fmt: skip
    assert drifts.samples == 2
    assert drifts.by_module["llm"] == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------------------------------------- joining


def two_modules() -> Partition:
    """An encoder of one parameter with gradient norm 5, an LLM of two with gradient norm 13."""
    encoder, one, other = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(3))
    encoder.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    one.grad = torch.tensor([5.0, 0.0], dtype=torch.float64)
    other.grad = torch.tensor([0.0, 12.0], dtype=torch.float64)
    return Partition(
        {"encoder": ModuleParameters("encoder", {"e": encoder}), "llm": ModuleParameters("llm", {"a": one, "b": other})}
    )


def gradient(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grads(division: Partition) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in division.parameters()}


def test_weight_times_the_drift_gradient_is_subtracted():
    division = two_modules()
    drift_gradients = {"encoder": {"e": gradient(1, 2)}, "llm": {"a": gradient(3, 0), "b": gradient(0, 4)}}
    norms = apply_regulariser(division, drift_gradients, weight=0.5, cap=None)
    assert norms == pytest.approx({"encoder": 5**0.5, "llm": 5.0})
    expected = {"e": gradient(2.5, 3), "a": gradient(3.5, 0), "b": gradient(0, 10)}
    tiny.assert_same(grads(division), expected)


def test_cap_shortens_each_module_by_its_own_norms():
    division = two_modules()
    drift_gradients = {"encoder": {"e": gradient(0, 100)}, "llm": {"a": gradient(30, 0), "b": gradient(0, 40)}}
    before = grads(division)
    norms = apply_regulariser(division, drift_gradients, weight=1.0, cap=0.2)
    change = {name: before[name] - value for name, value in grads(division).items()}
    assert norms == pytest.approx({"encoder": 100.0, "llm": 50.0})  # before the cap
    torch.testing.assert_close(change["e"], gradient(0, 1))  # 0.2 * 5
    torch.testing.assert_close(change["a"], gradient(2.6 * 0.6, 0))  # 0.2 * 13, in the direction of the gradient
    torch.testing.assert_close(change["b"], gradient(0, 2.6 * 0.8))


def test_a_gradient_below_the_cap_is_not_lengthened():
    division = two_modules()
    apply_regulariser(division, {"encoder": {"e": gradient(0, 1)}}, weight=1.0, cap=1.0)
    tiny.assert_same(grads(division)["e"], gradient(3, 3))


def test_the_weight_acts_after_the_cap():
    division = two_modules()
    apply_regulariser(division, {"encoder": {"e": gradient(0, 100)}}, weight=0.5, cap=1.0)
    torch.testing.assert_close(grads(division)["e"], gradient(3, 4 - 2.5))


@pytest.mark.parametrize("cap", [None, 1.0, 0.1])
def test_a_loss_scale_changes_nothing_but_the_scale(cap):
    drift_gradients = {"encoder": {"e": gradient(7, -1)}, "llm": {"a": gradient(1, 1), "b": gradient(0, 40)}}
    plain, scaled = two_modules(), two_modules()
    for _, parameter in scaled.parameters():
        parameter.grad *= 1024
    plain_norms = apply_regulariser(plain, drift_gradients, 0.7, cap)
    scaled_norms = apply_regulariser(scaled, drift_gradients, 0.7, cap, loss_scale=1024)
    assert plain_norms == scaled_norms
    for name, value in grads(scaled).items():
        torch.testing.assert_close(value / 1024, grads(plain)[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_module_whose_drift_gradient_is_not_finite_is_left_alone(bad):
    division = two_modules()
    apply_regulariser(division, {"encoder": {"e": gradient(1, bad)}, "llm": {"a": gradient(1, 0)}}, cap=None)
    tiny.assert_same(grads(division), {"e": gradient(3, 4), "a": gradient(4, 0), "b": gradient(0, 12)})


def test_a_parameter_outside_the_loss_stays_without_gradient():
    division = two_modules()
    division.modules["llm"].trainable["a"].grad = None
    apply_regulariser(division, {"llm": {"a": gradient(1, 0), "b": gradient(0, 2)}}, cap=None)
    assert division.modules["llm"].trainable["a"].grad is None
    tiny.assert_same(division.modules["llm"].trainable["b"].grad, gradient(0, 10))


def test_without_gradients_the_drifts_are_the_same_and_nothing_is_differentiated(monkeypatch):
    model = tiny.lora_llava()
    division, batches = partition(model), tiny.llava_step(seed=1)
    previous = {name: p.detach() * 1.01 for name, p in model.named_parameters()}
    states = [RandomState() for _ in batches]
    drifts, _ = look_back(model, division, previous, batches, states)
    monkeypatch.setattr(torch.autograd, "grad", None)
    alone, gradients = look_back(model, division, previous, batches, states, with_gradients=False)
    assert alone.by_module == drifts.by_module
    assert not any(gradients.values())
