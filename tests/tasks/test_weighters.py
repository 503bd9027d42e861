"""What every weighter promises, then each one's own values. A weighter that WEIGHTERS names inherits the first part.

Beside TorchJD's, LibMTL's and the authors' code on the same losses they agree to rounding; what is below needs none of
them: the formulas are written out again by hand.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import RecipeError
from equipoise.tasks.softmax import scaled_softmax
from equipoise.tasks.weighters import WEIGHTERS, Weighter, build_weighter

TASKS = ("a", "b", "c", "d")
NAN = math.nan
TOKENS = (30, 1, 200, 7)

each = pytest.mark.parametrize("name", WEIGHTERS)


def build(name: str, tasks: Sequence[str] = TASKS, **settings: object) -> Weighter:
    """The weighter with short windows, and with weights where it needs them."""
    if name in ("fixed", "cotbal"):
        settings["weights"] = {task: 0.25 * (place + 1) for place, task in enumerate(tasks)}
    return build_weighter(name, tasks, **{"window": 3, **settings})


def losses_of(step: int) -> list[float]:
    """Reproducible losses, some absent, in any step."""
    noise = random.Random(step)
    return [NAN if noise.random() < 0.25 else noise.uniform(0.01, 5) * 0.9**step for _ in TASKS]


def drive(weighter: Weighter, steps: range) -> list[list[float]]:
    """The weights before each step."""
    given = []
    for step in steps:
        given.append(weighter.weights(TOKENS).tolist())
        weighter.update(losses_of(step))
    return given


def softmax(values: Sequence[float], temperature: float = 1.0) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in values]
    return [len(values) * term / math.fsum(exponentials) for term in exponentials]


# ---------------------------------------------------------------------------------------------- every weighter


@each
@given(
    losses=st.lists(
        st.lists(st.one_of(st.just(NAN), st.just(math.inf), st.floats(0, 1e30)), min_size=4, max_size=4), max_size=12
    ),
    tokens=st.lists(st.integers(0, 10**9), min_size=4, max_size=4),
)
def test_weights_are_positive_and_finite_whatever_the_losses(name, losses, tokens):
    weighter = build(name, window=2)
    for step in losses:
        weighter.update(step)
    weights = weighter.weights(tokens)
    assert weights.dtype == np.float64
    assert weights.shape == (4,)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


@each
def test_weights_sum_to_the_number_of_tasks(name):
    expected = 2.5 if name in ("fixed", "cotbal") else 4.0
    for weights in drive(build(name), range(20)):
        assert sum(weights) == pytest.approx(expected, rel=1e-12)


@each
def test_asking_changes_nothing_and_ranks_that_are_told_the_same_agree(name):
    one, other = build(name), build(name)
    for step in range(10):
        asked = [one.weights(TOKENS).tolist() for _ in range(3)]
        assert asked == [other.weights(TOKENS).tolist()] * 3
        one.update(losses_of(step))
        other.update(losses_of(step))


@each
def test_what_the_caller_does_to_the_weights_stays_with_the_caller(name):
    weighter, untouched = build(name), build(name)
    weighter.weights(TOKENS)[:] = 100.0
    assert weighter.weights(TOKENS).tolist() == untouched.weights(TOKENS).tolist()


@each
@pytest.mark.parametrize("interruption", range(0, 18, 2))
def test_a_resumed_weighter_continues_as_if_never_interrupted(name, interruption):
    whole = drive(build(name), range(18))
    first = build(name)
    drive(first, range(interruption))
    second = build(name)
    drive(second, range(100, 100 + interruption // 2))  # a state of its own, to be replaced
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert drive(second, range(interruption, 18)) == whole[interruption:]


@each
def test_state_is_not_changed_by_what_comes_later(name):
    weighter = build(name)
    drive(weighter, range(4))
    state = weighter.state_dict()
    kept = json.dumps(state)
    drive(weighter, range(4, 15))
    assert json.dumps(state) == kept
    other = build(name)
    other.load_state_dict(state)
    drive(other, range(4, 15))
    assert json.dumps(state) == kept


@pytest.mark.parametrize("name", sorted({*WEIGHTERS} - {"rlw"}))  # its weights belong to no task
def test_tasks_in_another_order_have_the_same_weights(name):
    order = [2, 0, 3, 1]
    weights = {"weights": {"a": 0.5, "b": 2.0, "c": 1.5, "d": 3.0}} if name in ("fixed", "cotbal") else {}
    one = build_weighter(name, TASKS, window=2, **weights)
    other = build_weighter(name, [TASKS[place] for place in order], window=2, **weights)
    for step in range(15):
        expected = [one.weights(TOKENS)[place] for place in order]
        assert other.weights([TOKENS[place] for place in order]) == pytest.approx(expected, rel=1e-12)
        one.update(losses_of(step))
        other.update([losses_of(step)[place] for place in order])


@each
def test_one_task_alone_has_its_weight(name):
    weighter = build(name, ["a"])
    for loss in (2.0, NAN, 0.0, 3.0, 1.0, 1.0, 4.0, 2.0):
        assert weighter.weights([5]).tolist() == [0.25 if name in ("fixed", "cotbal") else 1.0]
        weighter.update([loss])


@each
def test_a_torch_tensor_of_tokens_or_losses_will_do(name):
    one, other = build(name), build(name)
    for step in range(8):
        assert one.weights(torch.tensor(TOKENS)).tolist() == other.weights(TOKENS).tolist()
        one.update(torch.tensor(losses_of(step), dtype=torch.float64))
        other.update(losses_of(step))


# ---------------------------------------------------------------------------------------------- ew, tla


def test_equal_weights_are_1():
    assert {weight for weights in drive(build("ew"), range(5)) for weight in weights} == {1.0}


@pytest.mark.filterwarnings("error")
def test_task_level_weights_are_inverse_to_the_tokens_of_the_tasks_present():
    weights = build("tla").weights([10, 0, 40, 20])
    # 1/10, 1/40, 1/20 have the sum 7/40, so mean 7/120.
    assert weights == pytest.approx([12 / 7, 1.0, 3 / 7, 6 / 7])
    assert build("tla").weights([0, 0, 0, 0]).tolist() == [1, 1, 1, 1]


@given(tokens=st.lists(st.integers(0, 10**6), min_size=4, max_size=4), losses=st.lists(st.floats(0.1, 5), min_size=4))
def test_equation_2_with_task_level_weights_is_the_mean_of_the_present_tasks_mean_losses(tokens, losses):
    present = [place for place in range(4) if tokens[place]]
    if not present:
        return
    weights = build("tla").weights(tokens)
    numerator = math.fsum(weights[place] * tokens[place] * losses[place] for place in present)
    denominator = math.fsum(weights[place] * tokens[place] for place in present)
    assert numerator / denominator == pytest.approx(math.fsum(losses[place] for place in present) / len(present))


# ---------------------------------------------------------------------------------------------- rlw


def test_random_weights_change_with_every_step_and_seed():
    first, second = (drive(build("rlw", seed=seed), range(10)) for seed in (0, 1))
    assert len({tuple(weights) for weights in first + second}) == 20


def test_random_weights_take_nothing_from_other_random_states():
    expected = drive(build("rlw"), range(5))
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    state = torch.get_rng_state()
    assert drive(build("rlw"), range(5)) == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_random_weights_are_a_softmax_of_standard_normal_draws():
    weights = np.array(drive(build("rlw"), range(4000)))
    logs = np.log(weights)
    # log lambda_i - log lambda_j = z_i - z_j: mean 0, variance 2; over three tasks z_i + z_j - 2 z_k has variance 6.
    for differences, variance in (
        (logs[:, 0] - logs[:, 1], 2),
        (logs[:, 2] - logs[:, 3], 2),
        (logs[:, 0] + logs[:, 1] - 2 * logs[:, 2], 6),
    ):
        assert differences.mean() == pytest.approx(0, abs=0.1)
        assert differences.var() == pytest.approx(variance, rel=0.1)
        assert (differences**4).mean() == pytest.approx(3 * variance**2, rel=0.2)  # normal
    # One step's draw says nothing about the next.
    steps = logs[:, 0] - logs[:, 1]
    assert np.corrcoef(steps[:-1], steps[1:])[0, 1] == pytest.approx(0, abs=0.05)


# ---------------------------------------------------------------------------------------------- dwa


def test_dwa_by_hand():
    weighter = build_weighter("dwa", "ab", window=2, temperature=2.0)
    for losses in ([4.0, 1.0], [2.0, 1.0], [1.0, 1.0]):
        assert weighter.weights([1, 1]).tolist() == [1, 1]
        weighter.update(losses)
    assert weighter.weights([1, 1]).tolist() == [1, 1]  # three losses: the second window is half full
    weighter.update([2.0, 2.0])
    # a: (1 + 2) / (4 + 2); b: (1 + 2) / (1 + 1).
    assert weighter.weights([1, 1]) == pytest.approx(softmax([0.5, 1.5], 2.0))
    weighter.update([6.0, 0.0])
    # The windows slide by a step. a: (2 + 6) / (2 + 1); b: (2 + 0) / (1 + 1).
    assert weighter.weights([1, 1]) == pytest.approx(softmax([8 / 3, 1.0], 2.0))


def test_dwa_a_step_without_a_task_adds_nothing_to_its_windows():
    weighter = build_weighter("dwa", "ab", window=1)
    for losses in ([4.0, 5.0], [NAN, 1.0], [1.0, math.inf], [NAN, 3.0], [NAN, NAN]):
        weighter.update(losses)
    # a: 1 after 4; b: 3 after 1.
    assert weighter.weights([1, 1]) == pytest.approx(softmax([0.25, 3.0], 2.0))


def test_dwa_a_task_whose_windows_are_not_full_counts_as_standing_still():
    weighter = build_weighter("dwa", "abc", window=1)
    weighter.update([4.0, NAN, 2.0])
    weighter.update([1.0, NAN, NAN])
    assert weighter.weights([1, 1, 1]) == pytest.approx(softmax([0.25, 1.0, 1.0], 2.0))


def test_dwa_a_window_of_zeros_counts_as_standing_still():
    weighter = build_weighter("dwa", "ab", window=1)
    weighter.update([0.0, 2.0])
    weighter.update([3.0, 1.0])
    assert weighter.weights([1, 1]) == pytest.approx(softmax([1.0, 0.5], 2.0))


@given(
    losses=st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.01, 9), st.floats(0.01, 9)), min_size=1, max_size=25),
    window=st.integers(1, 4),
    temperature=st.floats(0.1, 10),
)
def test_dwa_against_its_formula_on_whole_sequences(losses, window, temperature):
    weighter = build_weighter("dwa", "abc", window=window, temperature=temperature)
    for step in losses:
        weighter.update(step)
    expected = [1.0, 1.0, 1.0]
    if len(losses) >= 2 * window:
        columns = list(zip(*losses))
        last = [sum(column[len(losses) - window :]) for column in columns]
        before = [sum(column[len(losses) - 2 * window : len(losses) - window]) for column in columns]
        ratios = [new / old for new, old in zip(last, before)]
        highest = max(ratios)
        expected = softmax([ratio - highest for ratio in ratios], temperature)
    assert weighter.weights([1, 1, 1]) == pytest.approx(expected, rel=1e-9, abs=1e-300)


# ---------------------------------------------------------------------------------------------- igbv1


def test_igb_by_hand():
    weighter = build_weighter("igbv1", "ab", window=2)
    for losses in ([9.0, 9.0], [9.0, 9.0], [4.0, 1.0], [2.0, 2.0]):
        assert weighter.weights([1, 1]).tolist() == [1, 1]
        weighter.update(losses)
    # Bases: (4 + 2) / 2 and (1 + 2) / 2, of steps 2 and 3; the newest losses are 2 and 2.
    assert weighter.weights([1, 1]) == pytest.approx(softmax([2 / 3, 4 / 3]))
    weighter.update([6.0, NAN])
    assert weighter.weights([1, 1]) == pytest.approx(softmax([2.0, 4 / 3]))
    weighter.update([math.inf, 0.5])
    assert weighter.weights([1, 1]) == pytest.approx(softmax([2.0, 1 / 3]))


def test_igb_the_base_is_the_mean_over_those_of_its_steps_that_hold_the_task():
    weighter = build_weighter("igbv1", "ab", window=3)
    for losses in ([5.0, 5.0], [5.0, NAN], [5.0, 5.0], [2.0, NAN], [NAN, 8.0], [4.0, NAN]):
        weighter.update(losses)
    assert weighter.weights([1, 1]) == pytest.approx(softmax([4 / 3, 1.0]))


def test_igb_a_task_that_comes_late_takes_its_first_loss_as_base():
    weighter = build_weighter("igbv1", "ab", window=1)
    for losses in ([1.0, 7.0], [2.0, NAN], [1.0, NAN]):
        weighter.update(losses)
    assert weighter.weights([1, 1]) == pytest.approx(softmax([0.5, 1.0]))  # 7.0 was before the base's steps
    weighter.update([1.0, 4.0])
    assert weighter.weights([1, 1]) == pytest.approx(softmax([0.5, 1.0]))
    weighter.update([1.0, 6.0])
    assert weighter.weights([1, 1]) == pytest.approx(softmax([0.5, 1.5]))


def test_igb_steps_without_a_task_count_as_steps():
    weighter = build_weighter("igbv1", "ab", window=1)
    weighter.update([NAN, NAN])
    weighter.update([2.0, 4.0])
    weighter.update([3.0, 2.0])
    assert weighter.weights([1, 1]) == pytest.approx(softmax([1.5, 0.5]))


# ---------------------------------------------------------------------------------------------- windows of short runs


def steps_at_one(weighter: Weighter) -> int:
    """Steps until the weights of tasks whose losses differ leave 1."""
    for step in range(10_000):
        if weighter.weights(TOKENS).tolist() != [1, 1, 1, 1]:
            return step
        weighter.update([1.0 / (step + 1), 1.0, 1.0, 1.0])
    raise AssertionError("never")


@pytest.mark.parametrize(
    ("total_steps", "dwa", "igb"),
    [
        (None, 50, 200),
        (5000, 50, 200),
        (1000, 50, 200),
        (999, 50, 200),  # 24.975 and 99.9, rounded up
        (960, 48, 192),
        (500, 26, 100),
        (100, 6, 20),
        (41, 4, 10),
        (40, 2, 8),
        (1, 2, 3),  # after a window of one step the newest loss is the base
    ],
)
def test_windows_are_25_and_100_steps_and_in_proportion_in_runs_below_1000(total_steps, dwa, igb):
    assert steps_at_one(build_weighter("dwa", TASKS, total_steps=total_steps)) == dwa
    assert steps_at_one(build_weighter("igbv1", TASKS, total_steps=total_steps)) == igb


def test_a_window_that_is_given_is_not_scaled():
    assert steps_at_one(build_weighter("dwa", TASKS, total_steps=100, window=25)) == 50
    assert steps_at_one(build_weighter("igbv1", TASKS, total_steps=100, window=30)) == 60


def test_dwas_temperature_is_2():
    by_default, given = build_weighter("dwa", TASKS, window=1), build_weighter("dwa", TASKS, window=1, temperature=2.0)
    assert drive(by_default, range(6)) == drive(given, range(6))


# ---------------------------------------------------------------------------------------------- fixed


@pytest.mark.parametrize("name", ["fixed", "cotbal"])
def test_fixed_weights_are_the_given_ones_and_1_where_none_is_given(name):
    weighter = build_weighter(name, TASKS, weights={"c": 0.125, "a": 7})
    assert drive(weighter, range(4)) == [[7.0, 1.0, 0.125, 1.0]] * 4


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("fixed", {"weights": {"e": 1.0}}, "weight of 'e': no such task; there are a, b, c, d"),
        ("fixed", {"weights": {"b": 0}}, "weight of task b: found 0; it must be above 0 and finite"),
        ("fixed", {"weights": {"b": -1.5}}, "weight of task b: found -1.5; it must be above 0 and finite"),
        ("fixed", {"weights": {"b": NAN}}, "weight of task b: found nan; it must be above 0 and finite"),
        ("fixed", {"weights": {"b": math.inf}}, "weight of task b: found inf; it must be above 0 and finite"),
        ("fixed", {}, "weighter fixed needs weights: a number for each task"),
        ("cotbal", {}, "weighter cotbal needs weights: a number for each task"),
        ("dwa", {"window": 0}, "window: found 0; it must be at least 1"),
        ("dwa", {"temperature": 0.0}, "temperature: found 0; it must be above 0 and finite"),
        ("dwa", {"temperature": math.inf}, "temperature: found inf; it must be above 0 and finite"),
        (
            "gradnorm",
            {},
            "weighter: found 'gradnorm'; allowed: ew, tla, rlw, dwa, igbv1, fixed, cotbal",
        ),
    ],
)
def test_settings_that_cannot_be(name, settings, line):
    with pytest.raises(RecipeError) as error:
        build_weighter(name, TASKS, **settings)
    assert str(error.value) == line


# ---------------------------------------------------------------------------------------------- N softmax


@given(values=st.lists(st.floats(-20, 20), min_size=1, max_size=8), temperature=st.floats(0.2, 100))
def test_scaled_softmax_term_by_term(values, temperature):
    assert scaled_softmax(values, temperature) == pytest.approx(softmax(values, temperature), rel=1e-9)


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_scaled_softmax_is_never_zero_and_never_overflows(values):
    weights = scaled_softmax(values, 1e-3)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(len(values))
