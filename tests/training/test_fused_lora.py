"""LoRA's term in one function against peft's own forward, and its dropout against the mask's own statistics."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn
from torch.utils.checkpoint import checkpoint

from equipoise.training import fused_lora as module
from equipoise.training.fused_lora import dropout_mask, fused_lora
from training._fast import distance, identical, lora_model, output_and_gradients, rows

EXACT = {torch.float32: 1e-6, torch.float64: 1e-12}
SHAPES = [(5, 7, 64), (1, 3, 64), (6, 64), (64,), (2, 3, 4, 64)]


class Kept:
    """A recorder."""

    def __init__(self) -> None:
        self.found: dict[nn.Parameter, torch.Tensor] = {}

    def take(self, parameter: nn.Parameter, gradients: torch.Tensor) -> None:
        self.found[parameter] = gradients


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of samples of the fused terms computed inside."""
    seen: list[int] = []
    apply = module._LowRank.apply
    with monkeypatch.context() as patch:
        patch.setattr(module._LowRank, "apply", lambda *args: (seen.append(len(args[0])), apply(*args))[1])
        yield seen


def lora_layers(model: nn.Module) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, LoraLinear)]


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_without_dropout_it_is_peft_s(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    model, x = lora_model(dtype), rows(*shape, dtype=dtype)
    expected = output_and_gradients(model, x)
    with fused_lora(model) as count:
        found = output_and_gradients(model, x)
        assert count == 2
    assert len(expected) == 6
    assert distance(found, expected) < EXACT[dtype]


def test_in_eval_mode_and_without_gradients_it_is_peft_s(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = lora_model(dropout=0.5).eval(), rows(5, 7, 64)
    state = torch.get_rng_state()
    with torch.no_grad():
        expected = model(x)
        with fused_lora(model), watched(monkeypatch) as seen:
            torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
            assert seen == [5, 5]
    assert torch.equal(torch.get_rng_state(), state)


def test_under_autocast_it_computes_in_its_type() -> None:
    model, x = lora_model(torch.float32), rows(5, 7, 64, dtype=torch.float32)
    exact = output_and_gradients(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        expected = output_and_gradients(model, x)
        with fused_lora(model):
            found = output_and_gradients(model, x)
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in expected.items()}
    assert found["output"].dtype == torch.bfloat16
    assert 1e-4 < distance(found, exact) < 1.5 * distance(expected, exact)


def test_a_16_bit_model_with_adapters_in_float32_is_cast_as_peft_casts() -> None:
    model = lora_model(torch.float32)
    for layer in lora_layers(model):
        layer.base_layer.to(torch.bfloat16)
    x = rows(5, 7, 64, dtype=torch.bfloat16)
    expected = output_and_gradients(model, x)
    with fused_lora(model):
        found = output_and_gradients(model, x)
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in expected.items()}
    assert distance(found, expected) < 0.01


# ---------------------------------------------------------------------- dropout


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_the_mask_keeps_what_it_should(rate: float) -> None:
    torch.manual_seed(3)
    mask, kept = dropout_mask(torch.empty(500, 2001), rate)
    assert mask is not None
    assert mask.dtype == torch.bool
    assert kept == pytest.approx(1 - rate, abs=2**-17)
    deviation = (rate * (1 - rate) / mask.numel()) ** 0.5
    assert abs(mask.double().mean().item() - kept) < 5 * deviation
    # neighbours in memory, in a word and a word apart, know nothing of each other
    flat = (mask.view(-1).double() - kept) / (rate * (1 - rate)) ** 0.5
    for lag in (1, 2, 3, 4, 2001):
        assert abs((flat[lag:] * flat[:-lag]).mean().item()) < 5 / flat.numel() ** 0.5


def test_extreme_rates() -> None:
    x = torch.ones(3, 5)
    assert dropout_mask(x, 0.0) == dropout_mask(x, 1e-6) == (None, 1.0)
    mask, kept = dropout_mask(x, 1.0)
    assert mask is not None
    assert (mask.any().item(), kept) == (False, 0.0)
    mask, _ = dropout_mask(x[:0], 0.5)
    assert mask is not None
    assert mask.shape == (0, 5)


def test_all_dropped_leaves_the_base_layer() -> None:
    model, x = lora_model(dropout=1.0), rows(5, 7, 64)
    with fused_lora(model), torch.no_grad():
        found = model(x)
        with model.disable_adapter():
            torch.testing.assert_close(found, model(x), rtol=1e-12, atol=1e-12)


def test_torch_s_generator_decides_the_mask() -> None:
    x = torch.empty(8, 100)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append([dropout_mask(x, 0.3)[0], dropout_mask(x, 0.3)[0]])
    (first, second), again, other = masks
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, other[0])


class SameMasks(nn.Module):
    """Dropout as peft's layers have it, with the masks of ours."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask, kept = dropout_mask(x, self.rate)
        assert mask is not None
        return x * mask / kept


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_with_dropout_it_is_autograd_s_on_the_same_masks(shape: tuple[int, ...]) -> None:
    model, x = lora_model(dropout=0.3), rows(*shape)
    torch.manual_seed(5)
    with fused_lora(model):
        found = output_and_gradients(model, x)
    for layer in lora_layers(model):
        layer.lora_dropout["default"] = SameMasks(0.3)
    torch.manual_seed(5)
    expected = output_and_gradients(model, x)
    assert distance(found, expected) < 1e-12


def test_dropout_changes_no_expectation() -> None:
    model, x = lora_model(dropout=0.4), rows(5, 7, 64)
    layer = lora_layers(model)[0]
    with torch.no_grad(), fused_lora(model):
        dropped = torch.stack([layer(x) for _ in range(400)])
        exact = layer.eval()(x)
        for part in (layer, *layer.modules()):
            part.train()
    error, spread = dropped.mean(0) - exact, dropped.std(0) / 20
    assert spread.min() > 0
    assert (error / spread).square().mean().sqrt().item() == pytest.approx(1, abs=0.15)


def test_checkpointed_activations_see_the_same_mask() -> None:
    model, x = lora_model(dropout=0.3), rows(5, 7, 64)

    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool):
            super().__init__()
            self.model, self.reentrant = model, reentrant

        def forward(self, x: torch.Tensor) -> Any:
            return checkpoint(self.model, x, use_reentrant=self.reentrant)

    with fused_lora(model):
        torch.manual_seed(5)
        expected = output_and_gradients(model, x)
        for reentrant in (False, True):
            torch.manual_seed(5)
            found = output_and_gradients(Checkpointed(reentrant), x)
            assert identical({name.removeprefix("model."): value for name, value in found.items()}, expected)


# ---------------------------------------------------------------------- gradients of each sample


def record(model: nn.Module) -> Kept:
    """Gives every A and B of the model one recorder."""
    kept = Kept()
    for layer in lora_layers(model):
        layer.lora_A["default"].per_sample = layer.lora_B["default"].per_sample = kept
    return kept


def test_gradients_of_each_sample_are_those_of_a_loop() -> None:
    model, x = lora_model(), rows(5, 7, 64)
    weight = torch.linspace(-1, 2, x.numel()).view(5, 7, 64)  # that of output_and_gradients
    with fused_lora(model):
        kept = record(model)
        output_and_gradients(model, x)
    found = dict(kept.found)
    assert len(found) == 4
    for sample in range(5):
        model.zero_grad()
        (model(x[sample : sample + 1]).float() * weight[sample : sample + 1]).sum().backward()
        for parameter, gradients in found.items():
            assert gradients.shape == (5, *parameter.shape)
            torch.testing.assert_close(gradients[sample], parameter.grad, rtol=1e-10, atol=1e-12)


def test_recording_changes_no_bit() -> None:
    model, x = lora_model(torch.float32, dropout=0.2), rows(5, 7, 64, dtype=torch.float32)
    found = []
    with fused_lora(model):
        for records in (False, True):
            kept = record(model) if records else Kept()
            torch.manual_seed(2)
            found.append(output_and_gradients(model, x))
        assert len(kept.found) == 4
        for parameter, gradients in kept.found.items():
            assert parameter.grad is not None
            assert torch.equal(gradients.sum(0), parameter.grad)
    assert identical(*found)


def test_rows_that_are_no_samples_are_not_recorded() -> None:
    model = lora_model()
    with fused_lora(model):
        kept = record(model)
        output_and_gradients(model, rows(6, 64))
    assert not kept.found


def test_what_does_not_learn_has_no_gradient_and_is_not_recorded() -> None:
    model, x = lora_model(), rows(5, 7, 64)
    for layer in lora_layers(model):
        layer.lora_A["default"].weight.requires_grad_(False)
    expected = output_and_gradients(model, x)
    with fused_lora(model):
        kept = record(model)
        assert distance(output_and_gradients(model, x), expected) < 1e-12
    assert set(kept.found) == {layer.lora_B["default"].weight for layer in lora_layers(model)}


# ---------------------------------------------------------------------- where peft's own forward is used


def second_adapter(model: PeftModel) -> None:
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])


def hooked(model: PeftModel) -> None:
    lora_layers(model)[0].lora_A["default"].register_forward_hook(lambda *_: None)
    lora_layers(model)[1].lora_dropout["default"].register_forward_pre_hook(lambda *_: None)


def other_dropout(model: PeftModel) -> None:
    for layer in lora_layers(model):
        layer.lora_dropout["default"] = nn.AlphaDropout(0.0)


STATES = {
    "two adapters": second_adapter,
    "merged": lambda model: model.merge_adapter(),
    "disabled": lambda model: model.base_model.disable_adapter_layers(),
    "hooks": hooked,
    "other dropout": other_dropout,
}


@pytest.mark.parametrize("state", STATES)
def test_layers_in_another_state_go_peft_s_way(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = lora_model(), rows(5, 7, 64)
    with fused_lora(model), watched(monkeypatch) as seen:
        model(x)
        assert seen == [5, 5]
        STATES[state](model)
        found = model(x)
        assert seen == [5, 5]
    assert torch.equal(found, model(x))


@pytest.mark.parametrize("setting", ["use_dora", "lora_bias"])
def test_other_kinds_of_lora_go_peft_s_way(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = lora_model(**{setting: True}, biases=True), rows(5, 7, 64)
    expected = model(x)
    with fused_lora(model), watched(monkeypatch) as seen:
        assert torch.equal(model(x), expected)
    assert not seen


def test_a_batch_of_several_adapters_goes_peft_s_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = lora_model().eval(), rows(2, 7, 64)
    with fused_lora(model), watched(monkeypatch) as seen:
        found = model(x, adapter_names=["__base__", "default"])
        assert not seen
        plain = model(x)
        assert seen == [2, 2]
    torch.testing.assert_close(found[1], plain[1], rtol=1e-12, atol=1e-12)
    with model.disable_adapter():
        torch.testing.assert_close(found[0], model(x)[0], rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- coming and going


def test_copies_and_saved_models_have_peft_s_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = lora_model(), rows(5, 7, 64)
    expected = model(x)
    file = io.BytesIO()
    with fused_lora(model):
        twin = copy.deepcopy(model)
        torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (twin, loaded):
        with torch.no_grad():
            with watched(monkeypatch) as seen:
                assert torch.equal(other(x), expected)
            assert not seen
            lora_layers(other)[0].base_layer.weight.zero_()
        assert not torch.equal(other(x), expected)
    assert torch.equal(model(x), expected)


def test_forwards_come_back_and_somebody_else_s_stays() -> None:
    model = lora_model()
    first, second = lora_layers(model)
    mine = second.forward
    second.forward = mine
    with fused_lora(model) as count:
        assert count == 1
        assert "forward" in vars(first)
    assert "forward" not in vars(first)
    assert vars(second)["forward"] is mine


def test_an_error_inside_leaves_nothing_behind() -> None:
    model = lora_model()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), fused_lora(model):
        model(rows(5, 63))
    assert not any("forward" in vars(layer) for layer in lora_layers(model))


def test_gradients_of_gradients_are_refused_and_not_wrong() -> None:
    model, x = lora_model(), rows(5, 7, 64).requires_grad_()
    with fused_lora(model):
        [gradient] = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()
