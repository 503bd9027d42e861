"""How predictions are scored: one file a metric, and the names that recipes call them by.

docs/metrics.md lists formula, source and agreement of each. The two deltas (`deltas.py`) compare methods and not
predictions, so they are not among `METRICS`.
"""

from __future__ import annotations

from functools import partial

from equipoise.metrics import (
    aokvqa_direct,
    cider,
    exact_match,
    iou,
    multiple_choice,
    relaxed_accuracy,
    rouge_l,
    vqa_accuracy,
)
from equipoise.metrics.score import Metric

METRICS: dict[str, Metric] = {
    "exact_match": exact_match.score,
    "vqa_accuracy": vqa_accuracy.score,
    "aokvqa_direct": aokvqa_direct.score,
    "multiple_choice": multiple_choice.score,
    "rouge_l": rouge_l.score,
    "cider": cider.score,
    "cider_ptb": partial(cider.score, tokenizer="ptb"),
    "iou": iou.score,
    "box_accuracy": iou.score_accuracy,
    "relaxed_accuracy": relaxed_accuracy.score,
}
