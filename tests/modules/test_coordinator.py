"""What a Coordinator measures, decides and records around real optimizer steps.

That it leaves no trace where it should not, and resumes bit for bit, is in test_invariants.py.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import bruteforce
import pytest
import torch
from torch import nn

import tiny
from equipoise.errors import PartitionError
from equipoise.modules.coordinator import Coordinator, Record
from equipoise.modules.forward import RandomState
from equipoise.modules.partition import Partition, partition, split_param_groups
from equipoise.recipe import Coordination

BOTH = ("projector", "llm")


def adamw(model: nn.Module, rate: float | torch.Tensor = 1e-2) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.1)


def toy_coordinator(
    settings: Coordination, tower_learns: bool = False, total_steps: int | None = None
) -> tuple[nn.Module, torch.optim.Optimizer, Coordinator]:
    model, division = tiny.toy(tower_learns)
    optimizer = adamw(model)
    return model, optimizer, Coordinator(model, optimizer, settings, division, total_steps)


def records_of(settings: Coordination, steps: int = 8, sizes: Sequence[int] = (3, 2), **options) -> list[Record]:
    torch.manual_seed(0)
    model, optimizer, coordinator = toy_coordinator(settings, **options)
    return [tiny.train_step(model, optimizer, tiny.toy_step(step, sizes), coordinator) for step in range(steps)]


# ---------------------------------------------------------------------------------------------- learning rates


@pytest.mark.parametrize("average", ["pooled", "mean"])
def test_the_rates_follow_equation_9_of_what_was_measured(average):
    records = records_of(Coordination("commit-clr", estimator="exact", window=3, average=average, min_factor=0.0))
    assert records[0]["lr_factor/llm"] == records[0]["lr_factor/projector"] == 1.0
    for step in range(1, len(records)):
        seen = [(r["drift/projector"], r["drift/llm"]) for r in records[:step]][-3:]
        if average == "pooled":
            kappa = sum(llm for _, llm in seen) / sum(projector for projector, _ in seen)
        else:
            kappa = sum(llm / projector for projector, llm in seen) / len(seen)
        assert records[step - 1]["kappa_average"] == pytest.approx(kappa, rel=1e-12)
        assert records[step - 1]["window_span"] == len(seen)
        assert records[step]["lr_factor/llm"] == pytest.approx(2 / (kappa + 1), rel=1e-12)
        assert records[step]["lr_factor/projector"] == pytest.approx(2 / (1 / kappa + 1), rel=1e-12)


def test_the_optimizer_steps_at_factor_times_base_rate_and_the_scheduler_never_sees_it():
    model, optimizer, coordinator = toy_coordinator(Coordination("commit-clr", estimator="exact", window=3))
    stepped_at: list[dict[str, float]] = []
    optimizer.register_step_pre_hook(lambda o, *_: stepped_at.append({g["module"]: g["lr"] for g in o.param_groups}))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for step in range(10):
        base = 1e-2 * (1 + math.cos(math.pi * step / 10)) / 2
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([base] * 2, rel=1e-9)
        record = tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator, scheduler)
        for name in BOTH:
            assert stepped_at[-1][name] == pytest.approx(base * record[f"lr_factor/{name}"], rel=1e-9)
            assert record[f"lr/{name}"] == stepped_at[-1][name]
    assert record["lr_factor/llm"] != pytest.approx(1, abs=0.01)


def test_each_module_keeps_its_own_base_rate():
    model, division = tiny.toy()
    optimizer = adamw(model)
    split_param_groups(optimizer, division, {"projector": 1e-3, "llm": 2e-5})
    coordinator = Coordinator(model, optimizer, Coordination("commit-clr", estimator="exact"), division)
    for step in range(4):
        record = tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)
    for name, base in (("projector", 1e-3), ("llm", 2e-5)):
        assert record[f"lr/{name}"] == pytest.approx(base * record[f"lr_factor/{name}"], rel=1e-12)
    assert [(g["module"], g["lr"]) for g in optimizer.param_groups] == [("projector", 1e-3), ("llm", 2e-5)]


def test_a_rate_that_is_a_tensor_is_put_back_too():
    model, division = tiny.toy()
    optimizer = adamw(model, torch.tensor(1e-2))
    coordinator = Coordinator(model, optimizer, Coordination("llm-lr-up"), division)
    for step in range(3):
        record = tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([1e-2, 1e-2], rel=1e-6)
    assert float(record["lr/llm"]) == pytest.approx(0.1)
    assert float(record["lr/projector"]) == pytest.approx(0.01)


def test_without_warm_up_rate_there_is_nothing_to_measure_and_nothing_is_skipped():
    model, optimizer, coordinator = toy_coordinator(Coordination("commit", estimator="exact"))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 2))
    records = [tiny.train_step(model, optimizer, tiny.toy_step(s), coordinator, scheduler) for s in range(3)]
    assert ["kappa" in record for record in records] == [False, True, True]
    assert ["lookback_drift/llm" in record for record in records] == [False, False, True]
    assert coordinator.skipped == 0


# ---------------------------------------------------------------------------------------------- what is measured


def test_kappa_is_the_llms_drift_over_the_references():
    records = records_of(Coordination("commit-clr", estimator="exact", reference="projector"), tower_learns=True)
    for record in records:
        assert record["kappa"] == record["drift/llm"] / record["drift/projector"]
        assert record["kappa/tower"] == record["drift/tower"] / record["drift/projector"]
        assert "kappa/projector" not in record


def test_gradient_norms_are_those_of_the_loss():
    model, optimizer, coordinator = toy_coordinator(Coordination("commit", estimator="exact"))
    for step in range(3):
        optimizer.zero_grad()
        for batch in tiny.toy_step(step):
            coordinator.observe(batch)
            (1024 * model(**batch).loss / 2).backward()
        own = {name: [p for n, p in model.named_parameters() if n.startswith(name)] for name in BOTH}
        norms = {name: torch.cat([p.grad.flatten() for p in ps]).norm().item() / 1024 for name, ps in own.items()}
        sizes = {name: torch.cat([p.detach().flatten() for p in ps]).norm().item() for name, ps in own.items()}
        coordinator.before_step(loss_scale=1024)
        optimizer.step()
        record = coordinator.after_step()
        for name in BOTH:
            assert record[f"grad_norm/{name}"] == pytest.approx(norms[name], rel=1e-12)
            assert record[f"grad_norm_relative/{name}"] == pytest.approx(norms[name] / sizes[name], rel=1e-12)


def test_update_norms_are_how_far_the_step_went():
    model, optimizer, coordinator = toy_coordinator(Coordination("commit-clr", estimator="exact"))
    for step in range(3):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer.zero_grad()
        for batch in tiny.toy_step(step):
            coordinator.observe(batch)
            (model(**batch).loss / 2).backward()
        coordinator.before_step()
        optimizer.step()
        record = coordinator.after_step()
        for name in BOTH:
            moves = [(p.detach() - before[n]).flatten() for n, p in model.named_parameters() if n.startswith(name)]
            assert record[f"theory/update_norm/{name}"] == pytest.approx(torch.cat(moves).norm().item(), rel=1e-12)


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (4, 2, 3)])
def test_sampling_at_least_the_whole_step_equals_exact(sizes):
    exact = records_of(Coordination("commit-clr", estimator="exact", theory=False), sizes=sizes)
    settings = Coordination("commit-clr", estimator="sampled", every=1, samples=sum(sizes), theory=False)
    assert records_of(settings, sizes=sizes) == exact


def test_sampling_measures_each_kth_step_on_some_samples():
    settings = Coordination("commit-clr", estimator="sampled", every=3, samples=2)
    records = records_of(settings, sizes=(4, 4))
    exact = records_of(Coordination("commit-clr", estimator="exact"), sizes=(4, 4))
    assert ["kappa" in record for record in records] == [step % 3 == 0 for step in range(8)]
    assert records[0]["drift/llm"] != pytest.approx(exact[0]["drift/llm"], rel=1e-6)
    assert records[0]["drift/llm"] == pytest.approx(exact[0]["drift/llm"], rel=10)
    assert records == records_of(settings, sizes=(4, 4))
    assert records != records_of(replace(settings, seed=1), sizes=(4, 4))


def test_sampling_draws_anew_at_every_step():
    settings = Coordination("constant", estimator="sampled", every=1, samples=2, theory=False)
    model, optimizer, coordinator = toy_coordinator(settings)
    drawn: list[torch.Tensor] = []

    def look(module: nn.Module, _: tuple, inputs: dict[str, torch.Tensor]) -> None:
        if not module.training:
            drawn.append(inputs["pixel_values"][:, 0])

    model.register_forward_pre_hook(look, with_kwargs=True)
    for _ in range(6):
        tiny.train_step(model, optimizer, tiny.toy_step(0, sizes=(8,)), coordinator)
    by_step = [drawn[3 * step : 3 * step + 3] for step in range(6)]
    assert all(torch.equal(one, other) and len(one) == 2 for one, *others in by_step for other in others)
    assert len({tuple(step[0].tolist()) for step in by_step}) > 2


def test_lookback_takes_the_regularisers_drifts_for_the_rates():
    records = records_of(Coordination("commit", estimator="lookback"))
    assert "kappa" not in records[0]
    for record in records[1:]:
        for name in BOTH:
            assert record[f"drift/{name}"] == record[f"lookback_drift/{name}"] > 0
        assert record["lr_factor/llm"] == pytest.approx(2 / (record["kappa_average"] + 1), rel=1e-12)


def test_lookback_agrees_with_exact_in_order_of_magnitude():
    records = records_of(Coordination("commit", estimator="exact", regulariser_weight=0.0))
    for before, record in pairwise(records):
        for name in BOTH:
            assert 0.1 < record[f"lookback_drift/{name}"] / before[f"drift/{name}"] < 10


def test_constant_without_measuring_records_no_drift():
    records = records_of(Coordination("constant", measure=False))
    assert not any(name.startswith(("drift", "kappa", "theory", "lookback")) for r in records for name in r)
    assert all(record["lr/llm"] == 1e-2 for record in records)


def test_lambda_is_that_of_consecutive_averages():
    records = records_of(Coordination("constant", estimator="exact", window=2))
    assert "theory/lambda" not in records[0]
    for before, record in pairwise(records):
        one, other = record["kappa_average"], before["kappa_average"]
        expected = (one + 1) / (other + 1) if one > 1 else (1 / one + 1) / (1 / other + 1)
        assert record["theory/lambda"] == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------------------------------- amplification


def test_amplification_leaves_kappa_nearly_unchanged_and_is_given_up_outside_the_quadratic_regime():
    plain = records_of(Coordination("constant", estimator="exact"), steps=1)
    settings = Coordination("constant", estimator="exact", amplification=2.0)
    torch.manual_seed(0)
    model, division = tiny.toy()
    optimizer = adamw(model, 1e-4)
    small = tiny.train_step(model, optimizer, tiny.toy_step(0), Coordinator(model, optimizer, settings, division))
    assert small["amplification"] == 2.0
    assert small["kappa"] == pytest.approx(plain[0]["kappa"], rel=0.1)
    far = Coordination("constant", estimator="exact", amplification=1e4)
    assert records_of(far, steps=1)[0]["amplification"] < 100


# ---------------------------------------------------------------------------------------------- regulariser


def regularised_gradients(samples: int | None) -> list[torch.Tensor]:
    """The gradients that the second step of a run hands to the optimizer, dropout on."""
    torch.manual_seed(0)
    model, division = tiny.toy()
    optimizer = adamw(model, 3e-3)
    settings = Coordination("commit", every=1, regulariser_cap=None, regulariser_samples=samples)
    coordinator = Coordinator(model, optimizer, settings, division)
    tiny.train_step(model, optimizer, tiny.toy_step(seed=0), coordinator)
    optimizer.zero_grad()
    for batch in tiny.toy_step(seed=1):
        coordinator.observe(batch)
        model(**batch).loss.backward()
    coordinator.before_step()
    return [p.grad.clone() for _, p in division.parameters() if p.grad is not None]


def test_regularising_on_as_many_samples_as_there_are_is_regularising_on_all():
    assert all(map(torch.equal, regularised_gradients(None), regularised_gradients(5)))


def test_regularising_on_fewer_samples_keeps_the_size_of_the_gradient():
    """A mean over the drawn samples, not a sum that shrinks with them."""
    whole, part = regularised_gradients(None), regularised_gradients(4)
    assert not all(map(torch.equal, whole, part))
    sizes = [torch.cat([g.flatten() for g in gradients]).norm().item() for gradients in (whole, part)]
    assert 0.5 < sizes[1] / sizes[0] < 2


def test_before_step_subtracts_the_capped_drift_gradient():
    model = tiny.lora_llava()
    division, optimizer = partition(model), adamw(model, 3e-3)
    coordinator = Coordinator(
        model, optimizer, Coordination("commit", estimator="exact", regulariser_cap=0.01), division
    )
    previous = {name: p.detach().clone() for name, p in model.named_parameters()}
    tiny.train_step(model, optimizer, tiny.llava_step(seed=0), coordinator)
    optimizer.zero_grad()
    batches, states = tiny.llava_step(seed=1), []
    for batch in batches:
        coordinator.observe(batch)
        states.append(RandomState().cpu)
        model(**batch).loss.backward()
    of_loss = {name: p.grad.clone() for name, p in division.parameters()}
    random_state = torch.get_rng_state()

    coordinator.before_step()

    assert torch.equal(torch.get_rng_state(), random_state)
    capped = []
    for name, module in division.trainable.items():
        own = tiny.names_of(model, name)
        _, of_drift = bruteforce.look_back(model, previous, own, batches, states)
        norm = torch.cat([g.flatten() for g in of_drift.values()]).norm()
        limit = 0.01 * torch.cat([of_loss[n].flatten() for n in own]).norm()
        capped.append(bool(norm > limit))
        for parameter_name, parameter in module.trainable.items():
            expected = of_loss[parameter_name] - of_drift[parameter_name] * min(1.0, float(limit / norm))
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-8, atol=1e-12)
    assert any(capped)


def test_commit_with_weight_zero_is_commit_clr():
    with_weight = records_of(Coordination("commit", estimator="exact", regulariser_weight=0.0))
    without = records_of(Coordination("commit-clr", estimator="exact"))
    for one, other in zip(with_weight, without, strict=True):
        tiny.assert_same({name: one[name] for name in other}, other)


def test_the_regulariser_changes_what_is_learned():
    one = records_of(Coordination("commit", estimator="exact"))
    other = records_of(Coordination("commit-clr", estimator="exact"))
    assert one[1]["drift/llm"] != other[1]["drift/llm"]


def test_a_skipped_optimizer_step_is_neither_measured_nor_looked_back_at():
    model, optimizer, coordinator = toy_coordinator(Coordination("commit", estimator="exact"))
    tiny.train_step(model, optimizer, tiny.toy_step(0), coordinator)
    for batch in tiny.toy_step(1):
        coordinator.observe(batch)
        model(**batch).loss.backward()
    coordinator.before_step()
    record = coordinator.after_step(was_skipped=True)
    assert "kappa" not in record
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]
    assert "lookback_drift/llm" not in tiny.train_step(model, optimizer, tiny.toy_step(2), coordinator)


# ---------------------------------------------------------------------------------------------- unusable drifts


def spoil(model: nn.Module, how: str) -> None:
    """Let the measuring forwards (eval mode: P_t and two modules, for each micro-batch) give unusable drifts."""
    measured = [0]

    def replace_logits(module: nn.Module, _: tuple, output: SimpleNamespace) -> None:
        if module.training:
            return
        measured[0] += 1
        if how == "infinite":  # a token that P_t allows, forbidden after the step
            if measured[0] % 3 != 1:
                output.logits[..., 0] = -math.inf
        else:
            output.logits = torch.full_like(output.logits, {"NaN": math.nan, "zero": 0.0}[how])

    model.register_forward_hook(replace_logits)


@pytest.mark.parametrize("how", ["NaN", "infinite", "zero"])
@pytest.mark.parametrize("controller", ["paper", "servo"])
def test_an_unusable_drift_is_counted_said_once_and_never_reaches_a_rate(how, controller, caplog):
    settings = Coordination("commit-clr", controller=controller, estimator="exact", window=3, theory=False)
    model, optimizer, coordinator = toy_coordinator(settings)
    spoil(model, how)
    with caplog.at_level(logging.WARNING):
        records = [tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator) for step in range(6)]
    assert all(record["lr/llm"] == record["lr/projector"] == 1e-2 for record in records)
    matches = {"NaN": math.isnan, "infinite": math.isinf, "zero": lambda drift: drift == 0}[how]
    assert all(matches(record["drift/llm"]) for record in records)
    assert [record["measurements_skipped"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert not any("kappa" in record for record in records)
    assert len([r for r in caplog.records if "no balance measured" in r.message]) == 1


def test_a_module_whose_rate_is_zero_freezes_no_rate():
    model, division = tiny.toy()
    optimizer = adamw(model)
    split_param_groups(optimizer, division, {"projector": 0.0})
    coordinator = Coordinator(model, optimizer, Coordination("commit", estimator="exact", window=2), division)
    for step in range(6):
        record = tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)
        assert record["drift/projector"] == 0.0
        assert record["lr/llm"] == 1e-2
    assert coordinator.skipped == 6


def test_after_a_bad_measurement_the_good_ones_still_rule():
    settings = Coordination("commit-clr", estimator="exact", window=5)
    model, optimizer, coordinator = toy_coordinator(settings)
    good = [tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator) for step in range(3)]
    spoil(model, "NaN")
    tiny.train_step(model, optimizer, tiny.toy_step(3), coordinator)
    record = tiny.train_step(model, optimizer, tiny.toy_step(4), coordinator)
    assert record["lr_factor/llm"] == pytest.approx(2 / (good[-1]["kappa_average"] + 1), rel=1e-12)


def test_bad_measurements_let_the_factors_decay_toward_one():
    model, optimizer, coordinator = toy_coordinator(Coordination("commit-clr", estimator="exact", window=2))
    for step in range(3):
        tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)
    spoil(model, "NaN")
    away = [
        abs(tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)["lr_factor/llm"] - 1)
        for step in range(3, 9)
    ]
    # The spoiled measurement of a step acts on the next; the third and later ones (more than the window) halve.
    assert away[0] == away[1] == away[2] > 0.01
    assert away[3:] == pytest.approx([away[0] / 2, away[0] / 4, away[0] / 8])


# ---------------------------------------------------------------------------------------------- coordinate descent


def adam_state(optimizer: torch.optim.Optimizer, division: Partition, name: str) -> list[dict]:
    return [copy.deepcopy(optimizer.state.get(p, {})) for p in division.trainable[name].trainable.values()]


@pytest.mark.parametrize(("schedule", "order"), [("feature-cd", BOTH), ("language-cd", BOTH[::-1])])
def test_coordinate_descent_leaves_the_waiting_module_untouched(schedule, order):
    settings = Coordination(schedule, estimator="exact")
    model, optimizer, coordinator = toy_coordinator(settings, total_steps=6)
    division = coordinator.division
    for step in range(6):
        learning, waiting = order if step < 3 else order[::-1]
        values, state = tiny.values_of(model), adam_state(optimizer, division, waiting)
        record = tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)
        now = tiny.values_of(model)
        for name in division.trainable[waiting].trainable:
            assert torch.equal(now[name], values[name]), (step, name)
        assert not all(torch.equal(now[name], values[name]) for name in division.trainable[learning].trainable)
        tiny.assert_same(state, adam_state(optimizer, division, waiting))
        assert (record[f"lr/{waiting}"], record[f"lr/{learning}"]) == (0.0, 1e-2)
        assert record[f"grad_norm/{waiting}"] > 0


# ---------------------------------------------------------------------------------------------- refusals


def test_one_learning_module_is_enough_for_constant_and_for_nothing_else():
    model = tiny.full_llava()
    model.model.multi_modal_projector.requires_grad_(False)
    division, optimizer = partition(model), adamw(model)
    record = tiny.train_step(
        model, optimizer, tiny.llava_step(), Coordinator(model, optimizer, Coordination("constant"), division)
    )
    assert "kappa" not in record
    assert record["lr/llm"] == 1e-2
    with pytest.raises(PartitionError, match="schedule commit-clr needs two"):
        Coordinator(model, optimizer, Coordination("commit-clr"), division)
