"""Drifts and regulariser from gradients by sample, against the exact ones where they must agree.

A label-or-rest choice is all there is where two tokens share the probability: there, for a small step, nothing is
estimated. How far the estimate is from exact in real training is what `equipoise bench fidelity` measures.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence

import tiny
from equipoise.modules import label_drift
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.drift import look_back, measure
from equipoise.modules.forward import GROUPS, RandomState
from equipoise.modules.partition import partition
from equipoise.modules.per_sample import PerSampleGradients
from equipoise.modules.snapshot import Values, snapshot
from equipoise.recipe import Coordination

TOKENS = (5, 6)  # all that the models below can say


def lora_llava(dropout: float = 0.0) -> nn.Module:
    """A LLaVA that can answer in two ways."""
    model = tiny.lora_llava(dropout=dropout)
    allowed = torch.full((tiny.VOCABULARY,), -1e4, dtype=torch.float64)
    allowed[list(TOKENS)] = 0.0
    model.get_base_model().lm_head.register_forward_hook(lambda _, __, logits: logits + allowed)
    return model


def three_modules() -> nn.Module:
    """The tower learns too."""
    model = lora_llava()
    for name, parameter in model.named_parameters():
        if "vision_tower" in name:
            parameter.requires_grad_(True)
    return model


def step_of(sizes: Sequence[int], seed: int = 0) -> list[tiny.Batch]:
    """Micro-batches of so many samples, each answered by one token."""
    generator = torch.Generator().manual_seed(seed)
    batches = [tiny.llava_batch((1,) * size, seed=100 * seed + index) for index, size in enumerate(sizes)]
    for batch in batches:
        answers = torch.tensor(TOKENS)[torch.randint(0, 2, batch["labels"].shape, generator=generator)]
        for name in ("input_ids", "labels"):
            batch[name] = torch.where(batch["labels"] == -100, batch[name], answers)
    return batches


def backward(model: nn.Module, recorder: PerSampleGradients, batches: list[tiny.Batch]) -> list[RandomState]:
    model.zero_grad()
    recorder.forget()
    states = []
    for batch in batches:
        states.append(RandomState())
        recorder.observe(batch, states[-1], step=0)
        inputs = {name: value for name, value in batch.items() if name != GROUPS}
        (model(**inputs).loss / len(batches)).backward()
    recorder.finish()
    assert recorder.reason is None
    return states


def update(model: nn.Module, division: Any, rate: float) -> Values:
    before = snapshot(dict(division.parameters()))
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate).step()
    return before


PATTERNS = {"vision_tower": r"vision_tower", "projector": r"multi_modal_projector"}


@pytest.mark.parametrize("build", [lora_llava, three_modules])
def test_drifts_are_exact_for_small_steps_of_two_way_choices(build: Any) -> None:
    model, batches = build(), step_of((3, 1, 2))
    division = partition(model, PATTERNS if build is three_modules else None)
    recorder = PerSampleGradients(model, division, 6, 0)
    backward(model, recorder, batches)
    before = update(model, division, 1e-5)
    exact, found = measure(model, division, before, batches), label_drift.measure(recorder, division, before)
    assert found.samples == exact.samples == 6
    assert found.by_module.keys() == exact.by_module.keys()
    assert len(found.by_module) == (3 if build is three_modules else 2)
    for name, drift in exact.by_module.items():
        assert found.by_module[name] == pytest.approx(drift, rel=5e-3), name
    amplified = label_drift.measure(recorder, division, before, amplification=8.0)
    assert amplified.by_module == pytest.approx(found.by_module, rel=5e-3)
    assert 0 < found.gap < 0.1


@pytest.mark.parametrize("build", [lora_llava, three_modules])
def test_the_regulariser_is_exact_for_small_steps_of_two_way_choices(build: Any) -> None:
    model = build()
    division = partition(model, PATTERNS if build is three_modules else None)
    recorder = PerSampleGradients(model, division, 6, 0)
    backward(model, recorder, step_of((3, 1, 2)))
    previous = update(model, division, 1e-5)
    batches = step_of((2, 4), seed=1)
    states = backward(model, recorder, batches)
    exact, expected = look_back(model, division, previous, batches, states)
    drifts, gradients = label_drift.look_back(recorder, division, previous)
    for name, drift in exact.by_module.items():
        assert drifts.by_module[name] == pytest.approx(drift, rel=5e-3), name
        assert gradients[name].keys() == expected[name].keys()
        right = torch.cat([expected[name][n].flatten() for n in expected[name]])
        found = torch.cat([gradients[name][n].flatten() for n in expected[name]])
        assert (right - found).norm() < 1e-2 * right.norm(), name
    assert label_drift.look_back(recorder, division, previous, with_gradients=False)[1] == {
        name: {} for name in gradients
    }


def test_the_regularisers_masks_are_those_of_training() -> None:
    model = lora_llava(dropout=0.3)
    division = partition(model)
    recorder = PerSampleGradients(model, division, 6, 0)
    backward(model, recorder, step_of((6,)))
    previous = update(model, division, 1e-5)
    batches = step_of((6,), seed=1)
    states = backward(model, recorder, batches)
    exact, _ = look_back(model, division, previous, batches, states)
    drifts, _ = label_drift.look_back(recorder, division, previous)
    assert drifts.by_module == pytest.approx(exact.by_module, rel=5e-3)


def test_groups_are_their_samples() -> None:
    model, [batch] = lora_llava(), step_of((6,))
    batch[GROUPS] = torch.tensor([0, 1, 1, 0, 2, 2])
    division = partition(model)
    recorder = PerSampleGradients(model, division, 6, 0)
    backward(model, recorder, [batch])
    before = update(model, division, 1e-5)
    found = label_drift.measure(recorder, division, before)
    exact = measure(model, division, before, [batch])
    assert found.by_group.keys() == exact.by_group.keys() == {0, 1, 2}
    for group, drifts in exact.by_group.items():
        assert found.by_group[group] == pytest.approx(drifts, rel=2e-2)


@pytest.mark.parametrize("logit", [-8.0, -0.5, 0.0, 3.0, 12.0])
@pytest.mark.parametrize("gap", [-30.0, -1.0, 1e-4, 0.3, 20.0])
def test_bernoulli_kl_is_torchs(logit: float, gap: float) -> None:
    z, g = torch.tensor(logit, dtype=torch.float64), torch.tensor(gap, dtype=torch.float64)
    expected = kl_divergence(Bernoulli(logits=z), Bernoulli(logits=z + g))
    torch.testing.assert_close(label_drift.bernoulli_kl(z, g), expected, rtol=1e-6, atol=1e-13)


# ---------------------------------------------------------------------------------------------- in a Coordinator


def train(settings: Coordination | None, steps: range, rate: float = 1e-3, state: bytes | None = None) -> Any:
    torch.manual_seed(0)
    model = lora_llava(dropout=0.1)
    division = partition(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    coordinator = Coordinator(model, optimizer, settings, division, 8) if settings is not None else None
    if state is not None:
        saved = torch.load(io.BytesIO(state), weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        coordinator.load_state_dict(saved["coordinator"])
        torch.set_rng_state(saved["random"])
    records = [tiny.train_step(model, optimizer, step_of((2, 3), seed=step), coordinator) for step in steps]
    buffer = io.BytesIO()
    own = coordinator.state_dict() if coordinator is not None else {}
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "coordinator": own,
                "random": torch.get_rng_state()}, buffer)  # fmt: skip
    return model, records, buffer.getvalue(), coordinator


PER_SAMPLE = Coordination("constant", window=3, theory_every=4)


def test_measuring_changes_nothing() -> None:
    without, *_ = train(None, range(6))
    measured, records, *_ = train(PER_SAMPLE, range(6))
    assert all("kappa" in record for record in records)
    assert [step for step, record in enumerate(records) if "forward_drift/llm" in record] == [0, 4]
    assert [step for step, record in enumerate(records) if "theory/H/llm" in record] == [0, 4]
    tiny.assert_same(tiny.values_of(measured), tiny.values_of(without))


def test_theory_begins_with_the_first_measurement() -> None:
    """Which is not the first step where warm-up begins at a rate of 0."""
    model = lora_llava()
    division = partition(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    coordinator = Coordinator(model, optimizer, PER_SAMPLE, division)
    records = []
    for step in range(7):
        records.append(tiny.train_step(model, optimizer, step_of((2,), seed=step), coordinator))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
    assert [step for step, record in enumerate(records) if "theory/H/llm" in record] == [1, 5]


@pytest.mark.parametrize("schedule", ["commit", "commit-clr"])
def test_a_resumed_run_goes_on_bit_for_bit(schedule: Any) -> None:
    settings = replace(PER_SAMPLE, schedule=schedule)
    whole, records, *_ = train(settings, range(8))
    _, first, state, _ = train(settings, range(4))
    resumed, rest, *_ = train(settings, range(4, 8), state=state)
    tiny.assert_same(first + rest, records)
    tiny.assert_same(tiny.values_of(resumed), tiny.values_of(whole))


def test_the_regulariser_acts() -> None:
    plain, *_ = train(replace(PER_SAMPLE, schedule="commit-clr"), range(3))
    regularised, records, *_ = train(replace(PER_SAMPLE, schedule="commit"), range(3))
    assert "regulariser_norm/llm" not in records[0]
    assert all(records[1][f"regulariser_norm/{name}"] > 0 for name in ("encoder", "llm"))
    one, other = tiny.values_of(plain), tiny.values_of(regularised)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_step_that_is_too_large_is_measured_by_forwards() -> None:
    settings = replace(PER_SAMPLE, theory=False, measure=True)
    _, small, *_ = train(settings, range(2), rate=1e-4)
    _, large, *_ = train(settings, range(2), rate=0.3)
    assert not any("forward_drift/llm" in record for record in small)
    assert large[0]["drift/llm"] == large[0]["forward_drift/llm"]
    assert large[0]["drift/encoder"] == large[0]["forward_drift/encoder"]


def test_a_step_whose_samples_supervise_nothing_is_skipped() -> None:
    model = lora_llava()
    division = partition(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    coordinator = Coordinator(
        model, optimizer, replace(PER_SAMPLE, schedule="commit", samples=1, theory=False), division
    )
    [batch] = step_of((3,))
    silent = torch.randperm(3, generator=torch.Generator().manual_seed(0))[:1]  # the one that is drawn at step 0
    batch["labels"][silent] = -100
    first = tiny.train_step(model, optimizer, [batch], coordinator)
    assert first["measurements_skipped"] == 1
    assert coordinator.estimator == "per-sample"
    rest = [tiny.train_step(model, optimizer, step_of((3,), seed=step), coordinator) for step in (1, 2)]
    assert all("kappa" in record for record in rest)


def test_the_fallback_is_in_the_checkpoint() -> None:
    _, _, _, coordinator = train(PER_SAMPLE, range(2))
    state = coordinator.state_dict()
    assert (state["estimator"], state["trusted"]) == ("per-sample", True)
    _, _, _, other = train(PER_SAMPLE, range(1))
    other.load_state_dict({**state, "estimator": "sampled"})
    assert other.estimator == "sampled"
    assert other.measuring.recorder is None


def test_a_step_that_breaks_off_leaves_nothing_on_the_model() -> None:
    model = lora_llava()
    division = partition(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    coordinator, [batch] = Coordinator(model, optimizer, PER_SAMPLE, division), step_of((2,))
    model(**batch)  # transformers leaves hooks of its own at the first forward
    before = [(dict(m._forward_hooks), dict(m._forward_pre_hooks), set(vars(m))) for m in model.modules()]
    coordinator.observe(batch)
    coordinator.close()
    tiny.train_step(model, optimizer, [batch], coordinator)
    assert coordinator.estimator == "per-sample"
    assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks), set(vars(m))) for m in model.modules()] == before


def test_where_it_cannot_be_drifts_are_sampled(caplog: pytest.LogCaptureFixture) -> None:
    model, division = tiny.toy()
    settings = Coordination("constant", theory=False)
    with caplog.at_level(logging.WARNING):
        coordinator = Coordinator(model, torch.optim.SGD(model.parameters(), lr=0.1), settings, division)
        records = [tiny.train_step(model, coordinator.optimizer, tiny.toy_step(step), coordinator) for step in range(7)]
    assert coordinator.estimator == "sampled"
    assert [step for step, record in enumerate(records) if "kappa" in record] == [0, 5]
    assert [r.getMessage() for r in caplog.records] == [
        "estimator per-sample: the model has no decoder or no output head that transformers knows; sampled is used "
        "instead"
    ]
