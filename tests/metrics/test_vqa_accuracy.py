"""VQA accuracy: the official normal form on awkward answers, and the mean over leave-one-out subsets."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from awkward_answers import AWKWARD
from hypothesis import given
from hypothesis import strategies as st

from equipoise.metrics.vqa_accuracy import normalise, score


def accuracy(prediction: str, *references: str) -> float:
    return score([prediction], [references]).value


@pytest.mark.parametrize(("answer", "form"), AWKWARD.items())
def test_the_official_normal_form(answer, form):
    assert normalise(answer) == form


def test_enough_awkward_answers():
    assert len(AWKWARD) >= 60


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (5, 1), (9, 1), (10, 1)]
)
def test_ten_answers_are_scored_by_the_mean_over_leaving_one_out(matches, expected):
    # 3 matches: leaving out one of them leaves 2/3 (three times), leaving out another leaves 1 (seven times).
    assert accuracy("cat", *["cat"] * matches, *["dog"] * (10 - matches)) == pytest.approx(expected, abs=1e-15)


@given(references=st.lists(st.sampled_from(["x", "y", "z"]), min_size=4, max_size=12))
def test_it_is_the_mean_over_all_subsets_that_lack_one(references):
    subsets = list(combinations(references, len(references) - 1))
    expected = sum(min(Fraction(1), Fraction(subset.count("x"), 3)) for subset in subsets) / len(subsets)
    assert accuracy("x", *references) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("count", "matches", "expected"),
    [(1, 1, 1), (2, 1, 1 / 2), (2, 2, 1), (3, 1, 1 / 3), (3, 2, 2 / 3), (3, 3, 1), (4, 1, 1 / 4), (4, 4, 1)],
)
def test_of_fewer_than_four_references_all_the_others_must_match(count, matches, expected):
    assert accuracy("cat", *["cat"] * matches, *["dog"] * (count - matches)) == pytest.approx(expected)


def test_both_sides_are_normalised_even_where_all_references_agree():
    assert accuracy("Two.", *["two"] * 10) == 1
    assert accuracy("2", *["Two."] * 10) == 1
    assert accuracy("the t-shirt", *["T shirt", "a t-shirt", "t shirt!", "t/shirt"]) == 1


def test_each_sample_has_its_own_references():
    result = score(["cat", "dog", "cat"], [["cat"] * 10, ["cat"] * 10, ["cat", *["dog"] * 9]])
    assert result.samples == pytest.approx((1, 0, 0.3))
    assert result.value == pytest.approx(1.3 / 3)


@given(answer=st.text("aA1,.-' \n\t?two"))
def test_normal_forms_have_single_spaces_and_no_capitals(answer):
    form = normalise(answer)
    assert form == " ".join(form.lower().split())


@given(word=st.sampled_from(["cat", "red", "isn't"]), mark=st.sampled_from(list(';/[]"{}()=+\\_-><@`,?!')))
def test_a_mark_beside_a_word_never_counts(word, mark):
    assert {normalise(f"{mark}{word}"), normalise(f"{word} {mark}"), normalise(f"{word}{mark}")} == {word}
    assert normalise(f"{word}{mark}x") == f"{word} x"
    assert normalise(f"{word}{mark} x{mark}y") == f"{word} xy"


def test_more_than_32_periods_go_too():
    assert normalise("." * 40 + "yes" + "." * 1000) == "yes"
