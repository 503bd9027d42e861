"""What every schedule promises, then each one's own values. A schedule named in recipes is checked without being added.

The dynamics of the loops are in test_loop.py.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from torch import nn

from equipoise.errors import PartitionError, RecipeError
from equipoise.modules.partition import ModuleParameters
from equipoise.modules.schedules import Coordinated, CoordinateDescent, Schedule, Servo, build_schedule
from equipoise.modules.schedules.servo import largest_stable_gain
from equipoise.recipe import SCHEDULES, Coordination

MODULES = ("tower", "projector", "llm")
TOTAL_STEPS = 40
SETTINGS = [Coordination(schedule, window=4) for schedule in SCHEDULES] + [
    Coordination("commit", window=4, controller="servo"),
    Coordination("commit-clr", window=4, min_factor=0.0),
]


def name_of(settings: Coordination) -> str:
    return f"{settings.schedule}, {settings.controller}, {settings.min_factor}"


@pytest.fixture(params=SETTINGS, ids=name_of)
def settings(request: pytest.FixtureRequest) -> Coordination:
    return request.param


def parameters(scale: float = 1.0) -> dict[str, ModuleParameters]:
    return {n: ModuleParameters(n, {f"{n}.w": nn.Parameter(torch.full((3,), scale))}) for n in MODULES}


def drive(schedule: Schedule, steps: range) -> list[tuple[Mapping[str, float], frozenset[str]]]:
    """Feed the schedule reproducible measurements, skips and weights that settle; what it decided at each step."""
    decided = []
    for step in steps:
        noise = random.Random(step)
        if step % 16 >= 8 or noise.random() < 0.2:  # long enough a row of skips for the factors to decay
            schedule.skipped()
        else:
            schedule.measured({name: 10 ** noise.uniform(-9, 1) for name in MODULES})
        schedule.stepped(parameters(1 + 0.3**step))
        decided.append((schedule.factors(), schedule.waiting()))
    return decided


# ---------------------------------------------------------------------------------------------- every schedule


def test_factors_begin_at_one_unless_a_side_is_raised(settings):
    factors = build_schedule(settings, MODULES, TOTAL_STEPS).factors()
    assert factors.keys() == set(MODULES)
    assert set(factors.values()) == ({1.0, 10.0} if settings.schedule.endswith("-lr-up") else {1.0})


def test_factors_stay_positive_finite_and_on_the_modules(settings):
    schedule = build_schedule(settings, MODULES, TOTAL_STEPS)
    for factors, waiting in drive(schedule, range(30)):
        assert factors.keys() == set(MODULES)
        assert all(math.isfinite(factor) and factor > 0 for factor in factors.values())
        assert waiting < set(MODULES)


def test_factors_of_a_schedule_that_acts_on_measurements_sum_to_the_number_of_modules(settings):
    schedule = build_schedule(settings, MODULES, TOTAL_STEPS)
    decided = [factors for factors, _ in drive(schedule, range(30))]
    if schedule.needs_measurement:
        assert [sum(factors.values()) for factors in decided] == pytest.approx([3.0] * 30, rel=1e-12)
        assert min(min(factors.values()) for factors in decided) >= settings.min_factor
    assert schedule.needs_measurement == (len({tuple(factors.items()) for factors in decided}) > 1)


def test_a_resumed_schedule_decides_as_if_never_interrupted(settings):
    whole = build_schedule(settings, MODULES, TOTAL_STEPS)
    for interruption in range(1, 30, 4):
        first = build_schedule(settings, MODULES, TOTAL_STEPS)
        drive(first, range(interruption))
        state = copy.deepcopy(first.state_dict())
        second = build_schedule(settings, MODULES, TOTAL_STEPS)
        second.load_state_dict(state)
        whole_run = drive(copy.deepcopy(whole), range(30))
        assert drive(second, range(interruption, 30)) == whole_run[interruption:]


def test_state_is_not_changed_by_what_comes_later(settings):
    schedule = build_schedule(settings, MODULES, TOTAL_STEPS)
    drive(schedule, range(6))
    state = schedule.state_dict()
    kept = copy.deepcopy(state)
    drive(schedule, range(6, 20))
    assert str(state) == str(kept)


# ---------------------------------------------------------------------------------------------- constant


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {"tower": 1, "projector": 1, "llm": 1}),
        ("encoder-lr-up", {"tower": 10, "projector": 10, "llm": 1}),
        ("llm-lr-up", {"tower": 1, "projector": 1, "llm": 10}),
    ],
)
def test_constant_factors(schedule, expected):
    built = build_schedule(Coordination(schedule), MODULES, None)
    drive(built, range(5))
    assert built.factors() == expected
    assert built.waiting() == frozenset()


# ---------------------------------------------------------------------------------------------- coordinate descent


def waits(schedule: Schedule, scales: list[float]) -> list[frozenset[str]]:
    """Who waits at each step, when after it all weights are at `scales`."""
    seen = []
    for scale in scales:
        seen.append(schedule.waiting())
        schedule.stepped(parameters(scale))
    return seen


ENCODERS, LLM = frozenset({"tower", "projector"}), frozenset({"llm"})


@pytest.mark.parametrize(
    ("schedule", "waiting_first", "waiting_then"), [("feature-cd", LLM, ENCODERS), ("language-cd", ENCODERS, LLM)]
)
@pytest.mark.parametrize("total", [10, 11])
def test_coordinate_descent_switches_at_half(schedule, waiting_first, waiting_then, total):
    built = build_schedule(Coordination(schedule), MODULES, total)
    moving = [2.0**step for step in range(total)]
    half = math.ceil(total / 2)
    assert waits(built, moving) == [waiting_first] * half + [waiting_then] * (total - half)


def test_coordinate_descent_switches_when_the_first_side_is_stable():
    built = CoordinateDescent(["projector"], ["llm"], 100, window=5, tolerance=1e-3)
    scales = [2.0**step for step in range(10)] + [2.0**9 * (1 + 1e-4 * step) for step in range(20)]
    seen = waits(built, scales)
    # After step 10 the window starts at 2^9; after step 15 the weights have moved by 4e-4 of that.
    assert seen == [LLM] * 15 + [frozenset({"projector"})] * 15


@pytest.mark.parametrize(("moving", "waiting"), [("projector", LLM), ("llm", frozenset({"projector"}))])
def test_coordinate_descent_looks_at_the_first_side_only(moving, waiting):
    built = CoordinateDescent(["projector"], ["llm"], 100, window=5)
    for step in range(20):
        built.stepped({n: parameters(2.0**step if n == moving else 1.0)[n] for n in ("projector", "llm")})
    assert built.waiting() == waiting


def test_coordinate_descent_compares_with_the_window_before_not_with_the_start():
    built = CoordinateDescent(["projector"], ["llm"], 100, window=5, tolerance=1e-2)
    drifting = [1 + 3e-3 * step for step in range(30)]  # 1.5% a window
    assert set(waits(built, drifting)) == {LLM}


def test_coordinate_descent_never_switches_back():
    built = CoordinateDescent(["projector"], ["llm"], 20, window=5)
    assert waits(built, [1.0] * 10 + [2.0**step for step in range(10)])[10:] == [frozenset({"projector"})] * 10


def test_coordinate_descent_needs_the_number_of_steps():
    with pytest.raises(PartitionError, match="feature-cd needs the number of steps"):
        build_schedule(Coordination("feature-cd"), MODULES, None)


# ---------------------------------------------------------------------------------------------- coordinated


def test_coordinated_follows_equation_9():
    schedule = Coordinated(["encoder", "llm"], window=5)
    schedule.measured({"encoder": 1.0, "llm": 3.0})
    assert schedule.factors() == pytest.approx({"encoder": 1.5, "llm": 0.5})


def test_no_factor_falls_below_the_smallest():
    schedule = Coordinated(["encoder", "llm"], window=5, min_factor=0.02)
    schedule.measured({"encoder": 1e-9, "llm": 1.0})
    assert schedule.factors() == pytest.approx({"encoder": 1.98, "llm": 0.02})


def test_after_as_many_skips_as_the_window_the_factors_decay_toward_one():
    schedule = Coordinated(["encoder", "llm"], window=4)
    schedule.measured({"encoder": 1.0, "llm": 99.0})
    start = schedule.factors()["llm"]
    seen = []
    for _ in range(60):
        schedule.skipped()
        seen.append(schedule.factors()["llm"])
        assert sum(schedule.factors().values()) == pytest.approx(2, rel=1e-12)
    assert seen[:3] == [start] * 3
    assert all(earlier < later < 1 for earlier, later in pairwise(seen[4:]))
    assert seen[-1] == pytest.approx(1, abs=1e-3)


def test_a_measurement_ends_the_decay():
    schedule = Coordinated(["encoder", "llm"], window=3)
    for _ in range(10):
        schedule.skipped()
    schedule.measured({"encoder": 1.0, "llm": 3.0})
    for _ in range(3):
        schedule.skipped()
    assert schedule.factors() == pytest.approx({"encoder": 1.5, "llm": 0.5})


# ---------------------------------------------------------------------------------------------- servo


def test_servo_moves_the_log_ratio_by_the_gain_times_log_kappa():
    schedule = Servo(["encoder", "llm"], window=1, gain=0.3)
    for kappa in (7.0, 0.2):
        before = schedule.factors()
        schedule.measured({"encoder": 2.0, "llm": 2.0 * kappa})
        after = schedule.factors()
        moved = math.log(after["llm"] / after["encoder"]) - math.log(before["llm"] / before["encoder"])
        assert moved == pytest.approx(-0.3 * math.log(kappa), rel=1e-12)


def test_servo_rests_at_equal_drifts():
    schedule = Servo(MODULES, window=2, gain=0.3)
    schedule.measured({"tower": 1.0, "projector": 5.0, "llm": 0.1})
    resting = schedule.factors()
    schedule.measured(dict.fromkeys(MODULES, 3e-7))
    assert schedule.factors() == pytest.approx(resting, rel=1e-12)


@pytest.mark.parametrize(("window", "bound"), [(1, 1.0), (2, 1.0), (20, 0.1231)])
def test_largest_stable_gain(window, bound):
    assert largest_stable_gain(window) == pytest.approx(bound, rel=1e-3)
    assert Servo(MODULES, window).gain == pytest.approx(bound / 2, rel=1e-3)


@pytest.mark.parametrize("window", [1, 5, 20])
@pytest.mark.parametrize("times", [1.0, 1.001, 10.0, -0.5, 0.0])
def test_servo_refuses_a_gain_at_which_it_does_not_settle(window, times):
    with pytest.raises(RecipeError, match=r"balance\.modules\.gain: found .* window of"):
        Servo(MODULES, window, gain=times * largest_stable_gain(window))


def test_the_recipe_reaches_the_servo():
    settings = Coordination("commit", controller="servo", window=3, gain=0.2, min_factor=0.1)
    schedule = build_schedule(settings, MODULES, None)
    assert isinstance(schedule, Servo)
    assert (schedule.window, schedule.gain, schedule.min_factor) == (3, 0.2, 0.1)
