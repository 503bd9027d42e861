"""Exact match as METHODS defines it: lower case, stripped, one trailing period dropped; nothing more."""

from __future__ import annotations

import pytest

from equipoise.metrics.exact_match import normalise, score
from equipoise.metrics.score import Score


@pytest.mark.parametrize(
    ("answer", "form"),
    [("Yes", "yes"), ("  yes\n", "yes"), ("yes.", "yes"), (" Yes. ", "yes"), ("yes .", "yes"), (".", ""), ("", "")],
)
def test_case_space_and_one_period_do_not_count(answer, form):
    assert normalise(answer) == form


@pytest.mark.parametrize("answer", ["yes..", "yes!", "'yes'", "a yes", "y es", ".yes", "yes,"])
def test_all_else_counts(answer):
    assert score([answer], [["yes"]]).samples == (0.0,)


def test_any_reference_is_enough():
    result = score(["Blue.", "red", "green"], [["azure", "blue"], ["RED."], ["grey", "gray"]])
    assert result == Score(2 / 3, (1.0, 1.0, 0.0))


def test_no_reference_is_no_match():
    assert score([""], [[]]).samples == (0.0,)


def test_predictions_and_references_must_pair_up():
    with pytest.raises(ValueError, match="argument"):
        score(["a", "b"], [["a"]])
