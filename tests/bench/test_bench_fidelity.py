"""Fidelity: who watches changes nothing, a whole batch at every step is exact, figures worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from equipoise.bench.contestants import build
from equipoise.bench.fidelity import DEFAULT, EXACT, Agreement, _Watch, compare, watch
from equipoise.bench.stage import set_up
from equipoise.bench.watching import Seen, Watched
from equipoise.modules.coefficient import BalanceWindow
from equipoise.recipe import Coordination, Recipe


def silent(_: Any) -> None:
    pass


def test_watching_changes_nothing(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe(dropout=0.1)
    weights = []
    for watches in (False, True):
        trainer: Any = build(EXACT, set_up(recipe, 6, silent), tmp_path / str(watches))
        sampled = Coordination("constant", estimator="sampled", every=2, samples=1, window=3)
        by_gradients = Coordination("constant", every=2, samples=2, window=3)
        callback = _Watch(trainer, {"one": sampled, "other": by_gradients}, silent)
        if watches:
            trainer.add_callback(callback)
        trainer.train()
        weights.append({name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()})
    assert callback.watched is not None
    assert list(callback.watched.seen["one"].factors) == [0, 2, 4]
    assert list(callback.watched.seen["other"].factors) == [0, 2, 4]
    assert callback.watched.watching["other"].estimator == "per-sample"
    assert list(callback.watched.exact.factors) == [0, 1, 2, 3, 4, 5]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_whole_batch_at_every_step_is_exact(make_recipe: Callable[..., Recipe]) -> None:
    settings = {"estimator": "sampled", "every": 1, "samples": 64, "window": 4}
    found = watch(make_recipe(settings, batch_size=1), 7, seed=3, notify=silent)
    figures = found[DEFAULT].figures()
    assert figures["measurements"] == 7
    assert figures["r_log_kappa"] == pytest.approx(1)
    assert figures["rmse_log_kappa"] == figures["rmse_log_kappa_same_span"] == figures["rmse_lr_factor"] == 0
    [(own, exact)] = found[DEFAULT].losses
    assert own == pytest.approx(exact, rel=1e-6)  # the same rates, so the same run
    assert exact > 0


def test_gradients_by_sample_are_held_against_exact_ones(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    trainer: Any = build(EXACT, set_up(make_recipe(), 4, silent), tmp_path)
    callback = _Watch(trainer, {"one": Coordination("constant", samples=2)}, silent, every=2)
    trainer.add_callback(callback)
    trainer.train()
    assert callback.watched is not None
    found = compare(callback.watched, "one")
    assert len(found.regularisers) == 2  # at the second and the fourth step
    figures = found.figures()
    for module in ("projector", "llm"):
        of_step = found.regularisers[0]
        assert -1 <= of_step.cosines[module] <= 1
        assert of_step.norm_ratios[module] > 0
        assert of_step.step_cosines[module] > 0.5  # the loss gradient is in both, the cap bounds the rest
        assert figures[f"cosines/{module}"] == pytest.approx(sum(one.cosines[module] for one in found.regularisers) / 2)


def test_figures_by_hand() -> None:
    """An estimator that measures at step 1 alone, beside exact drifts of the LLM of 1, 3 and 8, of the encoder of 1."""
    acting = SimpleNamespace(window=BalanceWindow(["enc", "llm"], "enc", 1))
    watched: Any = Watched.__new__(Watched)
    watched.acting = acting
    watched.drifts = {step: {"enc": 1.0, "llm": llm} for step, llm in enumerate((1.0, 3.0, 8.0))}
    watched.exact, seen = Seen(), Seen()
    watched.seen, watched.regularisers = {"one": seen}, {"one": []}
    for step, drifts in watched.drifts.items():
        acting.window.push(step, drifts)
        watched.exact.note(step, acting.window, 0.0)
    own = BalanceWindow(["enc", "llm"], "enc", 2)
    own.push(0, {"enc": 1.0, "llm": 1.0})
    own.push(1, {"enc": 1.0, "llm": 1.0})
    seen.note(1, own, 0.0)

    found = compare(watched, "one")
    assert found.log_kappas == [(0.0, math.log(3))]
    assert found.same_span == [(0.0, pytest.approx(math.log(2)))]  # (1 + 3) / (1 + 1)
    # It says 1 for both from step 1 on; exact says 2/(1+3) and 2/(1+8) for the LLM, the rest of 2 for the encoder.
    assert found.factor_errors == pytest.approx([-0.5, 0.5, 1 - 16 / 9, 1 - 2 / 9])
    assert found.figures()["r_log_kappa"] is None  # of one pair
    assert found.figures()["rmse_lr_factor"] == pytest.approx(math.sqrt((2 * 0.25 + 2 * (7 / 9) ** 2) / 4))


def test_runs_are_pooled() -> None:
    one = Agreement([(0.0, 1.0)], [(0.0, 1.0)], [1.0], losses=[(0.5, 0.4)])
    other = Agreement([(1.0, 3.0)], [(1.0, 0.0)], [0.0], losses=[(0.5, 0.8)])
    one.add(other)
    assert one.figures() == {
        "measurements": 2,
        "r_log_kappa": pytest.approx(1),
        "rmse_log_kappa": pytest.approx(math.sqrt(5 / 2)),
        "r_log_kappa_same_span": pytest.approx(-1),
        "rmse_log_kappa_same_span": 1,
        "rmse_lr_factor": pytest.approx(math.sqrt(1 / 2)),
        "largest_loss_difference": pytest.approx(0.3),
        "loss_spread": pytest.approx(0.2 * math.sqrt(2)),
    }
