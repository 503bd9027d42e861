"""kappa~ and the factors it asks for: eq. 8-9, the generalisation to any number of modules, and the lower bound."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.modules.coefficient import BalanceWindow, balance_coefficient, bounded, coordinated_factors

drifts = st.floats(-28, 2).map(lambda exponent: 10**exponent)
pairs = st.lists(st.tuples(drifts, drifts), min_size=1, max_size=30)
several = st.integers(2, 6).flatmap(lambda count: st.lists(drifts, min_size=count, max_size=count))


def window_of(measured: list[tuple[float, float]], size: int, average: str) -> BalanceWindow:
    window = BalanceWindow(["encoder", "llm"], "encoder", size, average)
    for step, (encoder, llm) in enumerate(measured):
        window.push(step, {"encoder": encoder, "llm": llm})
    return window


def equation_9(kappa: float) -> dict[str, float]:
    return {"encoder": 2 / (1 / kappa + 1), "llm": 2 / (kappa + 1)}


def test_kappa_is_the_llms_drift_over_the_encoders():
    assert balance_coefficient(3.0, 2.0) == 1.5


@given(measured=pairs, size=st.integers(1, 20))
def test_pooled_gives_equation_9_of_the_ratio_of_sums(measured, size):
    kappa = math.fsum(llm for _, llm in measured[-size:]) / math.fsum(encoder for encoder, _ in measured[-size:])
    factors = coordinated_factors(window_of(measured, size, "pooled").averages())
    assert factors == pytest.approx(equation_9(kappa), rel=1e-12, abs=0)


@given(measured=pairs, size=st.integers(1, 20))
def test_mean_gives_equation_9_of_the_mean_of_ratios(measured, size):
    ratios = [llm / encoder for encoder, llm in measured[-size:]]
    factors = coordinated_factors(window_of(measured, size, "mean").averages())
    assert factors == pytest.approx(equation_9(math.fsum(ratios) / len(ratios)), rel=1e-12, abs=0)


def test_mean_with_three_modules_divides_by_the_reference():
    window = BalanceWindow(["a", "b", "llm"], "b", 5, "mean")
    window.push(0, {"a": 1.0, "b": 2.0, "llm": 8.0})
    window.push(1, {"a": 9.0, "b": 3.0, "llm": 6.0})
    assert window.averages() == pytest.approx({"a": 1.75, "b": 1.0, "llm": 3.0})


def test_before_the_first_measurement_there_is_no_average():
    window = BalanceWindow(["encoder", "llm"], "encoder", 5)
    assert window.averages() is None
    assert window.span == 0


def test_span_counts_steps_and_the_window_measurements():
    window = BalanceWindow(["encoder", "llm"], "encoder", 3)
    for step in (1, 6, 11, 16, 21):
        window.push(step, {"encoder": step, "llm": 1.0})
    assert window.averages() == {"encoder": 16.0, "llm": 1.0}
    assert window.span == 11


def test_window_state_round_trip():
    window = window_of([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)], 2, "pooled")
    other = BalanceWindow(["encoder", "llm"], "encoder", 2)
    other.push(0, {"encoder": 100.0, "llm": 100.0})
    other.load_state_dict(window.state_dict())
    for one in (window, other):
        one.push(7, {"encoder": 7.0, "llm": 8.0})
    assert other.averages() == window.averages() == {"encoder": 6.0, "llm": 7.0}
    assert other.span == window.span


def test_state_is_not_changed_by_later_measurements():
    window = window_of([(1.0, 2.0)], 3, "pooled")
    state = window.state_dict()
    window.push(1, {"encoder": 50.0, "llm": 50.0})
    other = BalanceWindow(["encoder", "llm"], "encoder", 3)
    other.load_state_dict(state)
    assert other.averages() == {"encoder": 1.0, "llm": 2.0}


@pytest.mark.parametrize(("reference", "size"), [("tower", 5), ("llm", 0)])
def test_window_refuses_what_it_cannot_do(reference, size):
    with pytest.raises(ValueError, match="window is 0" if size == 0 else "'tower'.*encoder, llm"):
        BalanceWindow(["encoder", "llm"], reference, size)


@given(values=several)
def test_factors_sum_to_their_number_and_are_inverse_to_the_drifts(values):
    factors = coordinated_factors({str(index): value for index, value in enumerate(values)})
    assert sum(factors.values()) == pytest.approx(len(values), rel=1e-12)
    products = [factors[str(index)] * value for index, value in enumerate(values)]
    assert products == pytest.approx([products[0]] * len(values), rel=1e-9)


@given(values=several, minimum=st.floats(0, 0.99))
def test_bounded_keeps_the_sum_the_minimum_and_the_order(values, minimum):
    factors = coordinated_factors({str(index): value for index, value in enumerate(values)})
    result = bounded(factors, minimum)
    assert sum(result.values()) == pytest.approx(len(values), rel=1e-12)
    assert min(result.values()) >= minimum
    ranked = sorted(factors, key=lambda name: factors[name])
    assert all(result[low] <= result[high] * (1 + 1e-12) for low, high in pairwise(ranked))


@given(values=several, minimum=st.floats(0.001, 0.99))
def test_bounded_takes_from_the_others_in_proportion(values, minimum):
    factors = coordinated_factors({str(index): value for index, value in enumerate(values)})
    result = bounded(factors, minimum)
    ratios = [result[name] / factors[name] for name in factors if result[name] > minimum]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-9)
    assert ratios[0] <= 1 + 1e-12


def test_bounded_leaves_what_needs_no_bound():
    assert bounded({"a": 0.5, "b": 1.5}, 0.02) == {"a": 0.5, "b": 1.5}
    assert bounded({"a": 1e-9, "b": 2 - 1e-9}, 0.0) == {"a": 1e-9, "b": 2 - 1e-9}


def test_bounded_lifts_again_what_its_own_scaling_pushed_below():
    result = bounded({"a": 0.01, "b": 0.52, "c": 2.47}, 0.5)
    assert result == pytest.approx({"a": 0.5, "b": 0.5, "c": 2.0})
