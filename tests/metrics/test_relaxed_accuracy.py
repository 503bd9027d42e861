"""ChartQA's relaxed accuracy: 5% on numbers, the string itself on all else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.metrics.relaxed_accuracy import score


def is_right(prediction: str, *targets: str) -> bool:
    return score([prediction], [targets]).value == 1


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ("100", "100"), ("105", "100"), ("95", "100"), ("-105", "-100"), ("0.96", "1"), ("1e3", "1000"), ("+7", "7"),
        ("100.", "100"), (" 104 ", "100"), ("5%", "5%"), ("5.2%", "5%"), ("5%", "0.05"), ("4.76%", "0.05"),
        ("0.05", "5 %"),
        ("2000", "1990"),
        ("Yes", "yes"), ("yes.", "Yes"), ("1,234", "1,234"), ("$5", "$5"), ("0", "0"), ("0%", "0%"), ("nan", "NaN"),
        ("inf", "inf"), ("Denmark", "Denmark."), ("5 million", "5 Million"), ("", ""),
    ],
)  # fmt: skip
def test_right(prediction, target):
    assert is_right(prediction, target)


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ("105.1", "100"), ("94.9", "100"), ("-100", "100"), ("0", "100"), ("5", "5%"), ("5%", "5"), ("1,234", "1234"),
        ("1234", "1,234"), ("$5", "5"), ("5 million", "5000000"), ("0.0", "0"), ("0.0001", "0"), ("0%", "0"),
        ("no", "yes"),
        ("yes", "5"), ("5", "five"), ("inf", "5"), ("nan", "5"), ("5", "inf"), ("", "5"), ("5", ""),
        ("about 100", "100"),
        ("1e999", "100"), ("100", "1e999"),
    ],
)  # fmt: skip
def test_wrong(prediction, target):
    assert not is_right(prediction, target)


def test_any_reference_is_enough():
    assert is_right("103", "7", "100")
    assert not is_right("103", "7", "90")


def test_exact_match_stands_beside_it():
    result = score(["104", "100", "yes", "no"], [["100"], ["100"], ["Yes."], ["yes"]])
    assert result.samples == (1, 1, 1, 0)
    assert result.value == 0.75
    assert result.also == {"exact_match": 0.5}


@given(
    predicted=st.fractions(-50, 50, max_denominator=100),
    wanted=st.fractions(-50, 50, max_denominator=100).filter(bool),
    percent=st.booleans(),
)
def test_numbers_are_right_within_a_twentieth_of_the_target(predicted, wanted, percent):
    change = abs(predicted - wanted) / abs(wanted)
    if abs(change - Fraction(1, 20)) > Fraction(1, 10**9):  # at 5% exactly, rounding decides
        sign = "%" if percent else ""
        written = [f"{float(value)!r}{sign}" for value in (predicted, wanted)]
        assert is_right(*written) is (change < Fraction(1, 20))


@given(prediction=st.text("0123456789.%-e naif"), target=st.text("0123456789.%-e naif"))
def test_it_is_never_below_exact_match(prediction, target):
    result = score([prediction], [[target]])
    assert result.value >= result.also["exact_match"]
