"""Measuring changes nothing, failing changes nothing, resuming continues bit for bit, and no swap meets a graph."""

from __future__ import annotations

import io
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from equipoise.modules.coordinator import Coordinator, Record
from equipoise.recipe import SCHEDULES, Coordination

EXACT = Coordination("commit", estimator="exact", window=3)
STEPS = 8


class Run:
    """A toy in training: everything that a checkpoint holds, and what a step leaves behind."""

    def __init__(self, settings: Coordination | None, tower_learns: bool = False):
        torch.manual_seed(0)
        self.model, division = tiny.toy(tower_learns)
        self.model.llm["layer"][3].eval()  # a flag unlike its neighbours'
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
        self.coordinator = Coordinator(self.model, self.optimizer, settings, division, STEPS) if settings else None
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=STEPS)

    def train(self, steps: range) -> list[Record]:
        return [
            tiny.train_step(self.model, self.optimizer, tiny.toy_step(step), self.coordinator, self.scheduler)
            for step in steps
        ]

    def traces(self) -> dict[str, Any]:
        by_name = {name: self.optimizer.state.get(p, {}) for name, p in self.model.named_parameters()}
        return {
            "values": tiny.values_of(self.model),
            "gradients": {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None},
            "optimizer": {name: dict(state) for name, state in by_name.items()},
            "rates": sorted({group["lr"] for group in self.optimizer.param_groups}),
            "random": torch.get_rng_state(),
            "flags": [module.training for module in self.model.modules()],
        }

    def checkpoint(self) -> bytes:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "coordinator": self.coordinator.state_dict() if self.coordinator else None,
            "random": torch.get_rng_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def resume(self, checkpoint: bytes) -> None:
        state = torch.load(io.BytesIO(checkpoint), weights_only=True)  # tensors, numbers and containers only
        for name in ("model", "optimizer", "scheduler", "coordinator"):
            getattr(self, name).load_state_dict(state[name])
        torch.set_rng_state(state["random"])


# ---------------------------------------------------------------------------------------------- measuring


@pytest.mark.parametrize("tower_learns", [False, True], ids=["frozen tower", "tower learns"])
@pytest.mark.parametrize("estimator", ["exact", "sampled", "lookback"])
def test_measuring_changes_nothing(estimator, tower_learns):
    settings = Coordination("constant", estimator=estimator, every=2, samples=3, measure=True)
    plain = Run(None, tower_learns)
    plain.train(range(STEPS))
    without = plain.traces()
    silent = Run(replace(settings, measure=False), tower_learns)
    silent.train(range(STEPS))
    tiny.assert_same(silent.traces(), without)
    measuring = Run(settings, tower_learns)
    records = measuring.train(range(STEPS))
    assert sum("kappa" in record for record in records) >= 4
    tiny.assert_same(measuring.traces(), without)


def test_measuring_with_amplification_changes_nothing():
    plain = Run(None)
    plain.train(range(STEPS))
    without = plain.traces()
    measuring = Run(Coordination("constant", estimator="exact", amplification=8.0, window=2))
    measuring.train(range(STEPS))
    tiny.assert_same(measuring.traces(), without)


# ---------------------------------------------------------------------------------------------- failing


class Failure(Exception):
    pass


def fail_in_forward(model: nn.Module, number: int) -> Any:
    """Let the model's `number`-th forward from now raise at its end."""
    remaining = [number]

    def count(*_: Any) -> None:
        remaining[0] -= 1
        if remaining[0] == 0:
            raise Failure

    return model.register_forward_hook(count)


@pytest.mark.parametrize("number", range(1, 11))
def test_a_failure_in_any_forward_of_a_measurement_leaves_the_new_parameters(number):
    run = Run(replace(EXACT, schedule="commit-clr"), tower_learns=True)
    assert run.coordinator is not None
    run.train(range(2))
    for batch in tiny.toy_step(2):
        run.coordinator.observe(batch)
        run.model(**batch).loss.backward()
    run.coordinator.before_step()
    run.optimizer.step()
    expected, places = run.traces(), {n: p.data_ptr() for n, p in run.model.named_parameters()}
    expected["rates"] = [run.scheduler.get_last_lr()[0]]  # and the base rates are back
    hook = fail_in_forward(run.model, number)
    with pytest.raises(Failure):
        run.coordinator.after_step()
    hook.remove()
    tiny.assert_same(run.traces(), expected)
    assert places == {name: p.data_ptr() for name, p in run.model.named_parameters()}


@pytest.mark.parametrize("number", range(1, 7))
def test_a_failure_in_any_forward_of_a_look_back_leaves_the_parameters(number):
    run = Run(EXACT)
    assert run.coordinator is not None
    run.train(range(2))
    for batch in tiny.toy_step(2):
        run.coordinator.observe(batch)
        run.model(**batch).loss.backward()
    expected = run.traces()
    hook = fail_in_forward(run.model, number)
    with pytest.raises(Failure):
        run.coordinator.before_step()
    hook.remove()
    tiny.assert_same(run.traces(), expected)


# ---------------------------------------------------------------------------------------------- resuming


RESUMED = [Coordination(schedule, estimator="exact", window=3) for schedule in SCHEDULES] + [
    replace(EXACT, estimator="lookback"),
    replace(EXACT, estimator="sampled", every=2, samples=2),
    replace(EXACT, controller="servo"),
    replace(EXACT, amplification=8.0),
]


@pytest.mark.parametrize(
    "settings", RESUMED, ids=lambda s: f"{s.schedule}, {s.estimator}, {s.controller}, {s.amplification}"
)
@pytest.mark.parametrize("interruption", [1, 4, 5])
def test_a_resumed_run_continues_bit_for_bit(settings, interruption):
    whole = Run(settings)
    records = whole.train(range(STEPS))
    traces = whole.traces()

    first = Run(settings)
    first.train(range(interruption))
    checkpoint = first.checkpoint()
    first.train(range(interruption, STEPS))  # what comes later may not reach into the checkpoint
    second = Run(settings)
    second.resume(checkpoint)

    tiny.assert_same(second.train(range(interruption, STEPS)), records[interruption:])
    tiny.assert_same(second.traces(), traces)


def test_a_state_without_snapshot_clears_the_snapshot():
    fresh, used = Run(EXACT), Run(EXACT)
    assert fresh.coordinator is not None
    assert used.coordinator is not None
    used.train(range(2))
    used.coordinator.load_state_dict(fresh.coordinator.state_dict())
    (record,) = used.train(range(1))
    assert not any(name.startswith("lookback") for name in record)


# ---------------------------------------------------------------------------------------------- swapping


class Saved:
    """What autograd saved in a forward; alive until its graph is freed."""

    def __init__(self, value: torch.Tensor):
        self.value = value


@pytest.mark.parametrize("estimator", ["exact", "sampled", "lookback"])
def test_parameters_are_swapped_only_where_no_graph_is_alive(estimator):
    run = Run(replace(EXACT, estimator=estimator, every=1))
    own = {name: p.data_ptr() for name, p in run.model.named_parameters()}
    alive: weakref.WeakSet[Saved] = weakref.WeakSet()
    forwards_on_others, forwards_with_graph = [0], [0]

    def pack(value: torch.Tensor) -> Saved:
        saved = Saved(value.detach())  # what saves its own output would otherwise keep itself alive
        alive.add(saved)
        return saved

    def look(module: nn.Module, *_: Any) -> None:
        if own != {name: p.data_ptr() for name, p in module.named_parameters()}:
            forwards_on_others[0] += 1
            assert not alive
            assert not torch.is_grad_enabled()
        elif torch.is_grad_enabled():
            forwards_with_graph[0] += 1

    run.model.register_forward_pre_hook(look)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.value):
        run.train(range(3))

    batches = 2
    looked_back = 2  # of three steps
    per_batch = 0 if estimator == "lookback" else 3  # P_t and the two modules alone
    assert forwards_on_others[0] == batches * (2 * looked_back + 3 * per_batch)
    assert forwards_with_graph[0] == batches * (3 + looked_back)
