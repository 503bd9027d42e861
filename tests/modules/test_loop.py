"""The loops that measuring and acting close (METHODS 1.3): where they settle, and where they do not.

Drift is quadratic in the learning rate, so d_m = s_m factor_m^2; r = s_llm / s_encoder is the kappa of equal rates.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from equipoise.modules.coefficient import BalanceWindow
from equipoise.modules.schedules import Coordinated, Schedule, Servo
from equipoise.modules.schedules.servo import largest_stable_gain

RUN_AWAY = math.log(1e6)


def log_kappas(
    schedule: Schedule, sizes: dict[str, float], window: int, average: str = "pooled", steps: int = 400
) -> list[float]:
    """log kappa = log (d_llm / d_encoder) along a simulated run; ends early where it runs away."""
    history = BalanceWindow(sizes, "encoder", window, average)
    seen = []
    for step in range(steps):
        factors = schedule.factors()
        drifts = {name: size * factors[name] ** 2 for name, size in sizes.items()}
        seen.append(math.log(drifts["llm"] / drifts["encoder"]))
        if abs(seen[-1] - seen[0]) > 2 * RUN_AWAY:
            break
        history.push(step, drifts)
        schedule.measured(history.averages())
    return seen


def coordinated(ratio: float, window: int, average: str) -> list[float]:
    schedule = Coordinated(["encoder", "llm"], window, min_factor=0.0)
    return log_kappas(schedule, {"encoder": 1e-4, "llm": 1e-4 * ratio}, window, average)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 100.0])
def test_pooled_settles_at_the_cube_root_of_the_ratio(ratio):
    assert coordinated(ratio, 5, "pooled")[-1] == pytest.approx(math.log(ratio) / 3, abs=1e-6)


@pytest.mark.parametrize(("ratio", "window"), [(5, 3), (15, 5), (0.1, 10), (100, 10), (0.01, 50)])
def test_mean_of_ratios_runs_away(ratio, window):
    assert max(map(abs, coordinated(ratio, window, "mean"))) > RUN_AWAY


@pytest.mark.parametrize(("ratio", "window"), [(5, 5), (15, 10), (0.1, 20), (100, 20)])
def test_mean_of_ratios_settles_with_a_longer_window(ratio, window):
    assert coordinated(ratio, window, "mean")[-1] == pytest.approx(math.log(ratio) / 3, abs=1e-3)


@pytest.mark.parametrize("window", [1, 5, 20])
@pytest.mark.parametrize("ratio", [0.01, 3.0, 100.0])
def test_servo_settles_at_equal_drifts(ratio, window):
    sizes = {"encoder": 1e-4, "llm": 1e-4 * ratio}
    assert log_kappas(Servo(list(sizes), window), sizes, window, steps=1000)[-1] == pytest.approx(0, abs=1e-6)


def test_servo_settles_three_modules_at_equal_drifts():
    sizes = {"tower": 1e-7, "encoder": 1e-5, "llm": 1e-3}
    schedule = Servo(list(sizes), 10)
    log_kappas(schedule, sizes, 10, steps=1000)
    drifts = [size * schedule.factors()[name] ** 2 for name, size in sizes.items()]
    assert drifts == pytest.approx([drifts[0]] * 3, rel=1e-6)


def test_servo_against_the_smallest_factor_does_not_wind_up():
    """Where equal drifts are out of reach, the factors leave the bound as soon as they should."""
    schedule = Servo(["encoder", "llm"], 1, gain=0.5, min_factor=0.1)
    for _ in range(100):
        schedule.measured({"encoder": 1.0, "llm": 1e6})
    assert schedule.factors()["llm"] == pytest.approx(0.1)
    schedule.measured({"encoder": 1e6, "llm": 1.0})
    assert schedule.factors()["llm"] > 1


def late_over_early(gain_over_bound: float, window: int) -> float:
    """How the servo's swing changes along a run that begins a little off; the gain is set past the check."""
    schedule = Servo(["encoder", "llm"], window)
    schedule.gain = gain_over_bound * largest_stable_gain(window)
    sizes = {"encoder": 1.0, "llm": 1.0001}
    seen = [abs(value) for value in log_kappas(schedule, sizes, window, steps=200 * window + 100)]
    part = 20 * window
    return max(seen[-part:]) / max(seen[:part])


@pytest.mark.parametrize("window", [1, 3, 5, 20])
def test_servo_settles_just_under_its_bound_and_not_just_over(window):
    assert late_over_early(0.97, window) < 0.5
    assert late_over_early(1.03, window) > 2


@pytest.mark.parametrize("window", range(1, 31))
def test_the_bound_is_where_the_characteristic_roots_leave_the_unit_circle(window):
    def radius(gain: float) -> float:
        # u[t+1] = u[t] - (2 g / N) (u[t] + ... + u[t-N+1])
        polynomial = np.array([1.0, -1.0] + [0.0] * (window - 1)) + np.array([0.0] + [2 * gain / window] * window)
        return float(np.abs(np.roots(polynomial)).max())

    assert radius(0.999 * largest_stable_gain(window)) < 1 - 1e-7
    assert radius(1.001 * largest_stable_gain(window)) > 1 + 1e-7
