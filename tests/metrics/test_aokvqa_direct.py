"""A-OKVQA's direct answer: a third for each match, none left out, strings as they are."""

from __future__ import annotations

import pytest

from equipoise.metrics import vqa_accuracy
from equipoise.metrics.aokvqa_direct import score


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (4, 1), (10, 1)])
def test_three_of_ten_matches_are_enough(matches, expected):
    references = ["cat"] * matches + ["dog"] * (10 - matches)
    assert score(["cat"], [references]).samples == (pytest.approx(expected),)


def test_no_reference_is_left_out_as_vqa_accuracy_does():
    references = ["cat"] * 3 + ["dog"] * 7
    assert score(["cat"], [references]).value == 1
    assert vqa_accuracy.score(["cat"], [references]).value == pytest.approx(0.9)


def test_strings_are_compared_as_they_are_but_for_space_around_them():
    references = [["stop sign"] * 10] * 5
    result = score(["stop sign", " stop sign\n", "Stop sign", "stop sign.", "a stop sign"], references)
    assert result.samples == (1, 1, 0, 0, 0)
    assert result.also == {"normalised": 1}


def test_the_normalised_figure_is_by_vqas_normal_form_on_both_sides():
    result = score(["Two cats.", "dog"], [["2 cats", "the two cats", "cats"], ["cat"] * 10])
    assert result.samples == (0, 0)
    assert result.also["normalised"] == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize(("count", "matches", "expected"), [(1, 1, 1), (2, 1, 1 / 2), (2, 2, 1), (3, 2, 2 / 3)])
def test_of_fewer_than_three_references_all_must_match(count, matches, expected):
    references = ["cat"] * matches + ["dog"] * (count - matches)
    assert score(["cat"], [references]).value == pytest.approx(expected)
