"""Which steps are not made, and when that ends a run."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch

import tiny
from equipoise.errors import DivergenceError
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.step_guard import LIMIT, NOTHING_SUPERVISED, StepGuard
from equipoise.recipe import Coordination

FINE = {"projector": 1.0, "llm": 2.0}
BAD = StepGuard().judge({"projector": 1.0, "llm": math.inf}, FINE)


def noted(*refusals) -> StepGuard:
    guard = StepGuard()
    for step, refusal in enumerate(refusals, 1):
        guard.note(step, refusal)
    return guard


def test_finite_norms_are_fine_whatever_their_size():
    for norm in (0.0, 1e-300, 1e300):
        assert StepGuard().judge({"a": norm}, {"a": norm}) is None


def test_what_is_wrong_is_named_the_worst_first():
    nan = {"projector": math.nan, "llm": 1.0}
    assert BAD is not None
    assert BAD.why == "the gradients of llm are not finite"
    assert StepGuard().judge(nan, nan, supervises=False).why == "the weights of projector are not finite"
    assert StepGuard().judge(nan, FINE, supervises=False) is NOTHING_SUPERVISED


def test_so_many_in_a_row_end_a_run_and_one_that_is_made_begins_anew():
    assert noted(*[BAD] * (LIMIT - 1)).verdict is None
    assert noted(*[BAD] * (LIMIT - 1), None, BAD).verdict is None
    guard = noted(None, *[BAD] * LIMIT)
    assert guard.verdict.startswith(f"{LIMIT} steps in a row, from step 2, were not made: {BAD.why}; try ")
    with pytest.raises(DivergenceError, match="in a row"):
        guard.require_going_on()


def test_weights_that_are_not_finite_end_it_at_once():
    guard = StepGuard()
    guard.note(5, guard.judge(FINE, {"projector": 1.0, "llm": math.nan}))
    assert guard.verdict.startswith("the weights of llm are not finite; ")


def test_a_scaler_that_looks_for_its_scale_is_counted_and_not_said(caplog):
    guard = StepGuard()
    for step in range(3 * LIMIT):
        guard.note(step, guard.judge({"llm": math.inf}, FINE, loss_scale=1024.0))
    assert (guard.skipped, guard.in_a_row, guard.verdict) == (3 * LIMIT, 0, None)
    assert caplog.records == []
    for step in range(LIMIT):  # nothing left to lower
        guard.note(step, guard.judge({"llm": math.inf}, FINE, loss_scale=1.0))
    assert "a gradient scaler found an overflow" in guard.verdict
    assert len(caplog.records) == 1


def test_each_kind_is_said_once(caplog):
    caplog.set_level(logging.WARNING)
    noted(BAD, BAD, None, NOTHING_SUPERVISED, BAD, NOTHING_SUPERVISED)
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "step 1 is not made: the gradients of llm are not finite",
        "step 4 is not made: no token was supervised",
    ]


def test_a_resumed_guard_goes_on(caplog):
    whole, first = noted(*[BAD] * 7), noted(*[BAD] * 4)
    second = StepGuard()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    caplog.clear()
    for step in range(5, 8):
        second.note(step, BAD)
    assert second.state_dict() == whole.state_dict()
    assert caplog.records == []


# ---------------------------------------------------------------------------------------------- in a loop of one's own


def loop(settings: Coordination) -> tuple[torch.nn.Module, torch.optim.Optimizer, Coordinator]:
    model, division = tiny.toy()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    return model, optimizer, Coordinator(model, optimizer, settings, division)


def spoilt(seed: int) -> list[tiny.Batch]:
    batches = tiny.toy_step(seed)
    batches[0]["pixel_values"][0, 0] = math.nan
    return batches


def still(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("schedule", ["commit", "commit-clr", "constant"])
def test_a_bare_loop_is_guarded(schedule):
    model, optimizer, coordinator = loop(Coordination(schedule, estimator="exact", window=3))
    tiny.train_step(model, optimizer, tiny.toy_step(0), coordinator)
    before = still(model)
    record = tiny.train_step(model, optimizer, spoilt(1), coordinator)
    tiny.assert_same(still(model), before)
    assert record["steps_skipped"] == 1
    assert "kappa" not in record
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]
    after = tiny.train_step(model, optimizer, tiny.toy_step(2), coordinator)
    assert "lookback_drift/llm" not in after
    assert after["kappa"] > 0
    assert math.isfinite(after["kappa_average"])


def test_a_bare_loop_ends_by_itself():
    model, optimizer, coordinator = loop(Coordination("constant", measure=False))
    for step in range(LIMIT):
        tiny.train_step(model, optimizer, spoilt(step), coordinator)
    with pytest.raises(DivergenceError, match=f"{LIMIT} steps in a row, from step 1"):
        tiny.train_step(model, optimizer, tiny.toy_step(0), coordinator)


@pytest.mark.parametrize("step", [spoilt, tiny.toy_step])
def test_with_a_gradient_scaler_nothing_moves_either(step):
    """It insists on gradients, and decides by itself on what is not finite; a step without labels is ours to hold."""
    model, optimizer, coordinator = loop(Coordination("commit", estimator="exact"))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    tiny.train_step(model, optimizer, tiny.toy_step(0), coordinator)
    before = still(model)
    optimizer.zero_grad()
    for batch in step(1):
        coordinator.observe(batch)
        scaler.scale(model(**batch).loss).backward()
    coordinator.before_step(scaler.get_scale(), supervises=step is spoilt)
    scaler.step(optimizer)
    scaler.update()
    record = coordinator.after_step(was_skipped=scaler.get_scale() < 8)
    tiny.assert_same(still(model), before)
    assert scaler.get_scale() == (4.0 if step is spoilt else 8.0)
    assert record["steps_skipped"] == 1
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]


def test_a_side_that_waits_may_have_any_gradient():
    """It does not move; its gradients are dropped before they are clipped together with the others'."""
    model, division = tiny.toy()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    coordinator = Coordinator(model, optimizer, Coordination("feature-cd"), division, total_steps=10)
    for batch in tiny.toy_step(0):
        model(**batch).loss.backward()
    model.llm["head"].weight.grad.fill_(math.nan)
    before = still(model)
    coordinator.before_step()
    optimizer.step()
    assert "steps_skipped" not in coordinator.after_step()
    assert not torch.equal(model.projector.weight, before["projector.weight"])
    assert torch.equal(model.llm["head"].weight, before["llm.head.weight"])


def test_steps_that_are_not_made_do_not_count_as_weights_that_stabilise():
    model, division = tiny.toy()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-1)
    coordinator = Coordinator(model, optimizer, Coordination("feature-cd"), division, total_steps=1000)
    window = coordinator.schedule.window
    coordinator.schedule.window = window = 3
    for step in range(window):
        tiny.train_step(model, optimizer, tiny.toy_step(step), coordinator)
    for step in range(window):
        tiny.train_step(model, optimizer, spoilt(step), coordinator)
    assert coordinator.schedule.waiting() == frozenset({"llm"})
