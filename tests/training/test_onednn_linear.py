"""Linear layers by oneDNN against F.linear, and a Trainer with both fast paths against one with neither."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from equipoise.recipe import Recipe
from equipoise.training import onednn_linear as module
from equipoise.training.onednn_linear import onednn_linears
from equipoise.training.run_directory import RunDirectory
from training._compare import steps
from training._fast import distance, identical, lora_model, output_and_gradients, rows

needs_op = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available(),
    reason="this torch has no oneDNN",
)


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where oneDNN is faster."""
    monkeypatch.setattr(module, "is_faster", lambda: True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that went to oneDNN, padding included."""
    seen: list[tuple[int, ...]] = []
    multiply = module._multiply

    def watched(rows_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        seen.append((*rows_NI.shape, weight_OI.shape[0]))
        return multiply(rows_NI, weight_OI, bias_O)

    monkeypatch.setattr(module, "_multiply", watched)
    return seen


def layer(bias: bool = True, learns: str = "", dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    made = nn.Linear(72, 96, bias=bias, dtype=dtype).requires_grad_(False)
    if learns:
        getattr(made, learns).requires_grad_(True)
    return made


@needs_op
@pytest.mark.parametrize("learns", ["", "weight", "bias", "both"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(8, 72), (5, 7, 72), (2, 3, 41, 72), (257, 72)], ids=str)
def test_it_is_f_linear(shape: tuple[int, ...], bias: bool, learns: str, calls: list[tuple[int, ...]]) -> None:
    made, x = layer(bias), rows(*shape, dtype=torch.float32)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(learns in (name, "both"))
    expected = output_and_gradients(made, x)
    with onednn_linears(made) as count:
        assert count == 1
        found = output_and_gradients(made, x)
    number = x.numel() // 72
    padded = number + -number % module._step(number)
    of_weight = [(96, padded, 72)] if made.weight.requires_grad else []
    assert calls == [(padded, 72, 96), (padded, 96, 72), *of_weight]
    assert distance(found, expected) < 1e-6
    assert len(found) == 2 + sum(parameter.requires_grad for parameter in made.parameters())


@needs_op
@pytest.mark.parametrize("outputs", [64, 99])
def test_a_layer_whose_input_needs_no_gradient(outputs: int, calls: list[tuple[int, ...]]) -> None:
    made, x = nn.Linear(72, outputs), rows(30, 72, dtype=torch.float32)
    with onednn_linears(made):
        made(x).square().sum().backward()
    found = made.weight.grad
    made.weight.grad = None
    assert [shape[-1] for shape in calls] == [outputs, 72]
    made(x).square().sum().backward()
    torch.testing.assert_close(found, made.weight.grad, rtol=1e-4, atol=1e-3)


@needs_op
def test_layers_of_one_input_keep_it_once() -> None:
    layers, x = nn.ModuleList([layer(learns="weight"), layer(learns="weight")]), torch.randn(41, 72)
    kept: list[int] = []
    with (
        onednn_linears(layers),
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.untyped_storage().data_ptr()) or tensor, lambda tensor: tensor
        ),
    ):
        sum(made(x) for made in layers)
    assert kept.count(x.untyped_storage().data_ptr()) == 2
    assert len(set(kept)) == 3


@needs_op
def test_inputs_in_any_memory_order() -> None:
    made, x = layer(), rows(72, 40, dtype=torch.float32).t()
    with onednn_linears(made):
        torch.testing.assert_close(made(x), functional.linear(x, made.weight, made.bias))
        wide = rows(9, 20, 72, dtype=torch.float32).transpose(0, 1)
        torch.testing.assert_close(made(wide), functional.linear(wide, made.weight, made.bias))
        leaf = wide.contiguous().requires_grad_()
        made(leaf).sum().backward()  # whose gradient is one number, expanded
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, made.weight.sum(0).expand(20, 9, 72))


@needs_op
def test_it_can_be_differentiated_twice() -> None:
    made, x = layer(learns="weight"), rows(10, 72, dtype=torch.float32)

    def second() -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        gradients = torch.autograd.grad(made(leaf).pow(3).sum(), [leaf, made.weight], create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in gradients) / 1e6, [leaf, made.weight]))

    expected = second()
    with onednn_linears(made):
        for found, value in zip(second(), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-3 * value.abs().max().item())


@needs_op
def test_a_row_s_result_does_not_hang_on_the_rows_that_pad() -> None:
    made, x = layer(), rows(64, 72, dtype=torch.float32)
    with onednn_linears(made), torch.no_grad():
        whole = made(x)
        assert torch.equal(made(x[:57]), whole[:57])


def test_shapes_are_few_and_padding_is_small() -> None:
    padded = {count + -count % module._step(count) for count in range(module.FEWEST_ROWS, 4097)}
    assert len(padded) <= 16 + 5 * 8
    for count in range(module.FEWEST_ROWS, 4097):
        assert module._step(count) <= max(8, count / 8)


ORDINARY: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "float64": lambda: (layer(dtype=torch.float64), rows(40, 72)),
    "bfloat16": lambda: (layer(dtype=torch.bfloat16), rows(40, 72, dtype=torch.bfloat16)),
    "few rows": lambda: (layer(), rows(7, 72, dtype=torch.float32)),
    "no rows": lambda: (layer(), rows(0, 72, dtype=torch.float32)),
    "narrow": lambda: (nn.Linear(72, 16).requires_grad_(False), rows(40, 72, dtype=torch.float32)),
    "subclass": lambda: (
        nn.modules.linear.NonDynamicallyQuantizableLinear(72, 96).requires_grad_(False),
        rows(40, 72, dtype=torch.float32),
    ),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_other_layers_go_torch_s_way(case: str, calls: list[tuple[int, ...]]) -> None:
    made, x = ORDINARY[case]()
    expected = output_and_gradients(made, x)
    with onednn_linears(made):
        assert identical(output_and_gradients(made, x), expected)
    assert not calls


def test_what_changes_under_way_goes_torch_s_way(calls: list[tuple[int, ...]]) -> None:
    made, x = layer(), rows(40, 72, dtype=torch.float32)
    expected = made(x)
    with onednn_linears(made):
        with torch.autocast("cpu", torch.bfloat16):
            assert made(x).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            assert torch.equal(made(x), expected)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            made(rows(40, 71, dtype=torch.float32))
        made.double()
        assert made(x.double()).dtype == torch.float64
    assert not calls


@pytest.mark.parametrize(
    ("capability", "vendor", "faster"),
    [("AVX512", "AuthenticAMD", True), ("AVX512", "GenuineIntel", False), ("AVX2", "AuthenticAMD", False)],
)
def test_the_processor_decides(
    capability: str, vendor: str, faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(module, "CPU_FACTS", facts)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None, raising=False)
    assert module.is_faster.__wrapped__() is faster
    monkeypatch.setattr(module, "CPU_FACTS", tmp_path / "none")
    monkeypatch.setattr(module.platform, "processor", lambda: f"AMD64 Family 25 Model 33 Stepping 0, {vendor}")
    assert module.is_faster.__wrapped__() is faster
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not module.is_faster.__wrapped__()


def test_where_it_is_not_faster_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_faster", lambda: False)
    made = layer()
    with onednn_linears(made) as count:
        assert count == 0
        assert "forward" not in vars(made)


def test_copies_and_saved_models_have_torch_s_forward(calls: list[tuple[int, ...]]) -> None:
    model, x = nn.Sequential(layer()), rows(40, 72, dtype=torch.float32)
    file = io.BytesIO()
    with onednn_linears(model):
        twin = copy.deepcopy(model)
        torch.save(model, file)
    file.seek(0)
    for other in (twin, torch.load(file, weights_only=False)):
        assert torch.equal(other(x), model(x))
        other[0].weight.zero_()
        assert torch.equal(other(x), other[0].bias.expand(40, 96))
    assert not calls
    assert "forward" not in vars(model[0])


@needs_op
def test_lora_s_base_layers_are_among_them() -> None:
    from equipoise.training.fused_lora import fused_lora

    model, x = lora_model(torch.float32), rows(5, 7, 64, dtype=torch.float32)
    expected = output_and_gradients(model, x)
    with onednn_linears(model) as count, fused_lora(model) as fused:
        assert (count, fused) == (2, 2)
        assert distance(output_and_gradients(model, x), expected) < 1e-6


@needs_op
def test_a_run_with_both_has_the_losses_of_one_with_neither(
    run: Callable[..., RunDirectory],
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    calls: list[Any],
) -> None:
    monkeypatch.setattr(module, "NARROWEST", 8)
    found = []
    for on in (False, True):
        finished = run(
            {"schedule": "commit"}, name=str(on), dropout=0.0, fused_lora=on, onednn=on, learning_rate=0.01, max_steps=4
        )
        assert bool(calls) is on
        found.append([line["loss"] for line in steps(finished)])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[0][-1] != pytest.approx(found[0][0], rel=1e-3)


@needs_op
@pytest.mark.parametrize("count", [16, 19])
def test_what_a_layer_gives_may_be_written_to(count: int) -> None:
    made = nn.Linear(72, 96).requires_grad_(False)
    x = torch.randn(2, count // 2 + 1, 72, requires_grad=True)
    bias = torch.randn(96, requires_grad=True)
    with onednn_linears(made):
        made(x).add_(bias).relu_().sum().backward()
    found, x.grad = x.grad, None
    made(x).add(bias).relu().sum().backward()
    torch.testing.assert_close(found, x.grad, rtol=1e-4, atol=1e-5)
