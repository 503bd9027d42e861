"""Exact match (EM), as CoTBal scores VQA: lower-cased, stripped, one trailing period dropped."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.metrics.score import Score


def normalise(answer: str) -> str:
    """The form in which two answers are compared."""
    return answer.strip().lower().removesuffix(".").strip()


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """1 for each prediction that equals one of its references, else 0."""
    return Score.mean_of(
        [
            float(normalise(prediction) in {normalise(reference) for reference in allowed})
            for prediction, allowed in zip(predictions, references, strict=True)
        ]
    )
