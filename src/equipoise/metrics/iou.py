r"""Intersection over union of a predicted and a true box, and the share of predictions above 0.5.

$$ \mathrm{IoU}(A, B) = \frac{|A \cap B|}{|A \cup B|} $$

CoTBal's Table 2 calls its grounding scores IoU; its authors' code reports the share of predictions with IoU > 0.5. Here
`score` is the mean IoU and `score_accuracy` that share (Acc@0.5), each with the other beside it. Above 0.5, as there;
the usual RefCOCO rule says "at least", which differs where the IoU is 0.5 exactly.

Boxes are written left, top, right, bottom, as shares of the image's width and height (`Sample.box`). In a text, the box
is the first pair of square or round brackets with exactly four numbers and no other bracket in it; where there is none,
the numbers of a text that has exactly four. "The 2 dogs: [0.1, 0.2, 0.6, 0.9]", "(0.1 0.2 0.6 0.9)", "(0.1,0.2),
(0.6,0.9)" and "0.1, 0.2, 0.6, 0.9" each hold one; "0.1, 0.2, 0.6" and "2 dogs at 0.1, 0.2, 0.6, 0.9" none. No box, an
inverted one or one without an area scores 0. Of several references the best counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from equipoise.data.sample import Box
from equipoise.metrics.score import Score

THRESHOLD = 0.5
BRACKETS = re.compile(r"[\[(]([^\[\]()]*)[\])]")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """The IoU of each prediction; `also["accuracy_at_0.5"]`."""
    values = _values(predictions, references)
    return Score.mean_of(values, also={"accuracy_at_0.5": Score.mean_of(_above(values)).value})


def score_accuracy(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """1 for each prediction whose IoU is above 0.5, else 0; `also["mean_iou"]`."""
    values = _values(predictions, references)
    return Score.mean_of(_above(values), also={"mean_iou": Score.mean_of(values).value})


def box_of(text: str) -> Box | None:
    """The box that a text holds, or None where it holds none, or one without an area."""
    groups = (NUMBER.findall(group) for group in BRACKETS.findall(text))
    numbers = next((group for group in groups if len(group) == 4), None) or NUMBER.findall(text)
    if len(numbers) != 4:
        return None
    left, top, right, bottom = map(float, numbers)
    # The area of a huge or tiny box can be infinite or nothing where its edges are not.
    usable = left < right and top < bottom and 0 < _area((left, top, right, bottom)) < math.inf
    return (left, top, right, bottom) if usable else None


def iou(one: Box, other: Box) -> float:
    """The intersection over union of two boxes that have an area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = _area(one) + _area(other) - width * height
    return width * height / union


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _values(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    values = []
    for prediction, allowed in zip(predictions, references, strict=True):
        predicted, true = box_of(prediction), [box for box in map(box_of, allowed) if box is not None]
        values.append(max((iou(predicted, box) for box in true), default=0.0) if predicted is not None else 0.0)
    return values


def _above(values: Sequence[float]) -> list[float]:
    return [float(value > THRESHOLD) for value in values]
