"""IoU: boxes in text, against brute-force rasters, and what must hold of any two boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.metrics.iou import box_of, iou, score, score_accuracy

GRID = 24


@st.composite
def grid_boxes(draw) -> tuple[int, int, int, int]:
    """A box on whole points of the grid."""
    left, right = sorted(draw(st.lists(st.integers(0, GRID), min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(draw(st.lists(st.integers(0, GRID), min_size=2, max_size=2, unique=True)))
    return left, top, right, bottom


@st.composite
def boxes(draw) -> tuple[float, float, float, float]:
    left, top = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    return left, top, left + draw(st.floats(0.01, 1)), top + draw(st.floats(0.01, 1))


def text_of(box: tuple[float, ...]) -> str:
    return f"[{', '.join(map(repr, box))}]"


def raster(box: tuple[int, int, int, int]) -> np.ndarray:
    """The cells of the grid that a box covers."""
    left, top, right, bottom = box
    return np.array([[left <= x < right and top <= y < bottom for x in range(GRID)] for y in range(GRID)])


@given(one=grid_boxes(), other=grid_boxes())
def test_it_is_the_share_of_common_cells_on_a_raster(one, other):
    first, second = raster(one), raster(other)
    expected = (first & second).sum() / (first | second).sum()
    shares = [tuple(edge / GRID for edge in box) for box in (one, other)]
    assert score([text_of(shares[0])], [[text_of(shares[1])]]).value == pytest.approx(expected, abs=1e-9)


@given(one=boxes(), other=boxes(), right=st.floats(-1, 1), down=st.floats(-1, 1))
def test_it_is_symmetric_within_0_and_1_and_blind_to_translation(one, other, right, down):
    value = iou(one, other)
    moved = [(box[0] + right, box[1] + down, box[2] + right, box[3] + down) for box in (one, other)]
    assert 0 <= value <= 1
    assert iou(other, one) == value
    assert iou(*moved) == pytest.approx(value, abs=1e-9)
    assert iou(one, one) == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1),
        ((0, 0, 0.5, 1), (0, 0, 1, 1), 1 / 2),
        ((0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), 1 / 7),
        ((0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), 0),  # side by side
        ((0, 0, 0.5, 0.5), (0, 0.5, 0.5, 1), 0),  # one above the other
        ((0, 0, 0.2, 0.2), (0.6, 0.6, 1, 1), 0),
        ((0.4, 0.4, 0.6, 0.6), (0, 0, 1, 1), 0.04),
    ],
)
def test_pairs_by_hand(one, other, expected):
    assert iou(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "[0.1, 0.2, 0.6, 0.9]", "[.1,.2,.6,.9]", "(0.1 0.2 0.6 0.9)", "0.1, 0.2, 0.6, 0.9", "0.1 0.2 0.6 0.9.",
        "The 2 dogs are at [0.1, 0.2, 0.6, 0.9], I think; 3 cats are not.", "[+1e-1, 2E-1, 0.6, 0.9]",
        "(0.1,0.2),(0.6,0.9)",
        "[[0.1, 0.2, 0.6, 0.9]]", "[1, 2] (0.1, 0.2, 0.6, 0.9) [0, 0, 1, 1]", "<box>0.1 0.2 0.6 0.9</box>",
    ],
)  # fmt: skip
def test_the_box_is_found_in_the_text(text):
    assert box_of(text) == (0.1, 0.2, 0.6, 0.9)


@pytest.mark.parametrize(
    "text",
    [
        "", "no box", "[]", "[0.1, 0.2, 0.6]", "0.1, 0.2, 0.6", "2 dogs at 0.1, 0.2, 0.6, 0.9",
        "[0.1, 0.2, 0.6, 0.9, 1]",
        "[0.6, 0.2, 0.1, 0.9]", "[0.1, 0.9, 0.6, 0.2]", "[0.1, 0.2, 0.1, 0.9]", "[0.1, 0.2, 0.6, 0.2]", "[a, b, c, d]",
        "[0.1, 0.2, 0.6, nan]", "[0, 0, 1e999, 1]", "[0, 0, 1e200, 1e200]", "[-1e999, 0, 1, 1]",
        "[0, 0, 1e-200, 1e-200]",
    ],
)  # fmt: skip
def test_a_text_without_a_usable_box_scores_0_on_either_side(text):
    assert box_of(text) is None
    assert score([text, "[0, 0, 1, 1]", text], [["[0, 0, 1, 1]"], [text], [text]]).samples == (0, 0, 0)
    assert score_accuracy([text], [["[0, 0, 1, 1]"]]).samples == (0,)


def test_the_first_bracket_with_four_numbers_counts():
    assert box_of("[0.6, 0.2, 0.1, 0.9] or [0, 0, 1, 1]") is None
    assert box_of("[1, 2, 3] [0, 0, 1, 1] [0, 0, 0.5, 0.5]") == (0, 0, 1, 1)


def test_the_best_reference_counts():
    result = score(["[0, 0, 0.5, 0.5]"], [["[0.5, 0.5, 1, 1]", "[0, 0, 0.5, 0.4]", "none", "[0, 0, 1, 1]"]])
    assert result.value == pytest.approx(0.8)


def test_each_metric_gives_the_other_beside_it():
    # IoUs of 1, 0.5, 0.51 and 0; 0.5 itself is not above 0.5.
    predictions = ["[0, 0, 1, 1]", "[0, 0, 0.5, 1]", "[0, 0, 0.51, 1]", "[0.5, 0, 0, 1]"]
    references = [["[0, 0, 1, 1]"]] * 4
    result, accuracy = score(predictions, references), score_accuracy(predictions, references)
    assert result.samples == pytest.approx((1, 0.5, 0.51, 0))
    assert result.value == pytest.approx(2.01 / 4)
    assert result.also == {"accuracy_at_0.5": 0.5}
    assert accuracy.samples == (1, 0, 1, 0)
    assert accuracy.value == 0.5
    assert accuracy.also == {"mean_iou": pytest.approx(2.01 / 4)}


@given(prediction=st.text("[]() 0123456789.,-e"), reference=st.text("[]() 0123456789.,-e"))
def test_no_text_raises(prediction, reference):
    assert 0 <= score([prediction], [[reference]]).value <= 1
