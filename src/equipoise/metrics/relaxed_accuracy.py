r"""ChartQA's relaxed accuracy (Masry et al., 2022, after Methani et al., 2020): numbers may be off by 5%.

A prediction $p$ is right when both it and the target $t \ne 0$ are numbers and $|p - t| / |t| \le 0.05$, and otherwise
when it is the same string in lower case. The rule is that of `relaxed_correctness` in
google-research/pix2struct, which later evaluations (Qwen-VL's, lmms-eval's) took over. Hence, as there:

- A number is what Python reads as one, with or without a percent sign; "5%" is 0.05 and not 5.
- "1,234" is no number, and equals only itself. Neither is "$5", nor "5 million".
- Nothing is within 5% of zero, so a target of zero is compared as a string: "0.0" is wrong for "0".
- Years are numbers: 2000 is right for 1990.

Departures: space around an answer and one trailing period do not count, as in exact match, so that relaxed accuracy is
never below it; and "nan" and "inf" are words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from equipoise.metrics import exact_match
from equipoise.metrics.score import Score

TOLERANCE = 0.05


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """1 for each prediction that is right by any of its references, else 0; `also["exact_match"]` beside it."""
    return Score.mean_of(
        [
            float(
                any(_is_right(exact_match.normalise(prediction), exact_match.normalise(target)) for target in allowed)
            )
            for prediction, allowed in zip(predictions, references, strict=True)
        ],
        also={"exact_match": exact_match.score(predictions, references).value},
    )


def _is_right(prediction: str, target: str) -> bool:
    predicted, wanted = _number(prediction), _number(target)
    if predicted is None or not wanted:
        return prediction == target
    return abs(predicted - wanted) / abs(wanted) <= TOLERANCE


def _number(text: str) -> float | None:
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
