r"""ROUGE-L (Lin, 2004), as COCO's caption evaluation computes it; the ordinary F1 beside it.

$$ P = \max_r \frac{\mathrm{LCS}(c, r)}{|c|} \qquad R = \max_r \frac{\mathrm{LCS}(c, r)}{|r|} \qquad
   F_\beta = \frac{(1 + \beta^2) P R}{R + \beta^2 P}, \quad \beta = 1.2 $$

$c$ is the prediction and $r$ a reference, as sequences of words; LCS is the length of their longest common subsequence.
Precision and recall are maximised over the references each on its own: they may come from different ones. That, $\beta$
and splitting at single spaces, of the strings as they are, is `pycocoevalcap.rouge.Rouge` exactly (COCO's own pipeline
runs a tokenizer before it).

`also["f1"]` is $\beta = 1$ as Google's `rouge_score` has it: words are runs of a-z and 0-9 after lower-casing, each
reference is scored whole, and the best counts. CoMMIT does not say which ROUGE-L its tables show.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from equipoise.metrics.score import Score

BETA = 1.2


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """COCO's F of each prediction against all of its references, 0 where there are none; `also["f1"]`."""
    pairs = list(zip(predictions, references, strict=True))
    f1 = Score.mean_of([max((_f1(prediction, each) for each in allowed), default=0.0) for prediction, allowed in pairs])
    return Score.mean_of([_coco(prediction, allowed) for prediction, allowed in pairs], also={"f1": f1.value})


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words two sequences share in order.

    A column of the textbook's table is one integer here, a bit a word of the shorter sequence, and a word of the longer
    one moves it by three operations on it (Hyyrö, 2004): a prediction that never ends costs what its length says.
    """
    shorter, longer = sorted((one, other), key=len)
    places: defaultdict[str, int] = defaultdict(int)
    for position, word in enumerate(shorter):
        places[word] |= 1 << position
    ones = (1 << len(shorter)) - 1
    column = ones
    for word in longer:
        if word in places:
            matching = column & places[word]
            column = ((column + matching) | (column - matching)) & ones
    return len(shorter) - column.bit_count()


def _coco(prediction: str, references: Sequence[str]) -> float:
    words = prediction.split(" ")
    precision = recall = 0.0
    for reference in references:
        expected = reference.split(" ")
        common = longest_common_subsequence(words, expected)
        precision, recall = max(precision, common / len(words)), max(recall, common / len(expected))
    return _f(precision, recall, BETA)


def _f1(prediction: str, reference: str) -> float:
    words, expected = (re.findall("[a-z0-9]+", text.lower()) for text in (prediction, reference))
    common = longest_common_subsequence(words, expected)
    return _f(common / len(words), common / len(expected), 1) if common else 0.0


def _f(precision: float, recall: float, beta: float) -> float:
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if precision else 0.0
