r"""A-OKVQA's direct answer (Schwenk et al., 2022), as the owners' `eval_predictions.py` scores it.

$$ \mathrm{accuracy} = \min\left(1, \frac{m}{\min(3, n)}\right) $$

$m$ is how many of the $n$ references (ten) the prediction equals. This is not VQA accuracy: no reference is left out,
and strings are compared as they are, but for space around them. A model that learned from the dataset writes its
answers as the dataset does; for others, `also["normalised"]` compares VQA's normal forms.

With fewer than three references all of them must match, where the script could not give 1. Which questions count (the
script leaves out those with `difficult_direct_answer`) is the reader's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from equipoise.metrics.score import Score
from equipoise.metrics.vqa_accuracy import normalise


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """The accuracy of each prediction against all of its references; 0 where there are none."""
    normalised = Score.mean_of(_accuracies(predictions, references, normalise))
    return Score.mean_of(_accuracies(predictions, references, str.strip), also={"normalised": normalised.value})


def _accuracies(
    predictions: Sequence[str], references: Sequence[Sequence[str]], form: Callable[[str], str]
) -> list[float]:
    return [
        min(1.0, [form(reference) for reference in allowed].count(form(prediction)) / min(3, len(allowed) or 1))
        for prediction, allowed in zip(predictions, references, strict=True)
    ]
