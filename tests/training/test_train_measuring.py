"""Measuring changes nothing: a run that measures ends with the very weights of one that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from equipoise.training.run_directory import RunDirectory
from training._compare import same, steps, weights

Run = Callable[..., RunDirectory]


@pytest.mark.parametrize("estimator", ["sampled", "exact", "lookback"])
def test_weights_are_those_of_an_unmeasured_run(run: Run, estimator: str) -> None:
    measured = run({"schedule": "constant", "measure": True, "estimator": estimator}, "measured")
    plain = run({"schedule": "constant", "measure": False}, "plain")
    assert any("kappa" in line for line in steps(measured))
    assert not any("kappa" in line for line in steps(plain))
    assert same(weights(measured.model), weights(plain.model))


def test_losses_are_those_of_an_unmeasured_run(run: Run) -> None:
    measured = run({"schedule": "constant", "measure": True}, "measured")
    plain = run({"schedule": "constant", "measure": False}, "plain")
    assert [line["loss"] for line in steps(measured)] == [line["loss"] for line in steps(plain)]


def test_coordination_does_change_the_weights(run: Run) -> None:
    """So that the comparison above can fail."""
    assert not same(
        weights(run({"schedule": "commit-clr"}, "acting").model), weights(run({"schedule": "constant"}, "plain").model)
    )


def test_dropout_is_on(run: Run) -> None:
    """Else no random state would matter."""
    with_dropout = run({"schedule": "constant"}, "with", max_steps=2)
    without = run({"schedule": "constant"}, "without", max_steps=2, dropout=0.0)
    assert steps(with_dropout)[0]["loss"] == pytest.approx(steps(without)[0]["loss"])  # LoRA's B is still zero
    assert abs(steps(with_dropout)[1]["loss"] - steps(without)[1]["loss"]) > 1e-4
