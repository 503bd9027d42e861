"""Accuracy on multiple-choice questions: A-OKVQA's, and IconQA's choose-txt and choose-img.

A sample's references are the text of the right choice and its letter. A prediction is right when it names that letter
("B", "b.", "(B)", "B: red", "B) red", "The answer is B.") or is that text, compared as exact match does.

Which reading comes first matters where texts look like letters:

1. A prediction that is a letter and nothing more is a letter, even where the right text is that letter: with the
   choices A: "B" and B: "A" nothing else tells the two apart. The readers train on letters.
2. Any other prediction is right when it is the text as a whole ("C. elegans" is no C).
3. Otherwise the letter that it begins with decides, whatever follows it.

The owners' script for A-OKVQA takes texts only, one of the choices; the share of right ones is the same quantity.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from equipoise.errors import DataError
from equipoise.metrics.exact_match import normalise
from equipoise.metrics.score import Score

# A letter after an optional lead-in; alone, or set off from what follows by brackets, a period or a colon.
LETTER = re.compile(
    r"""
    (?:(?:the\s+)?(?:(?:correct|right)\s+)?(?:answer|option|choice)(?:\s+is)?(?::\s*|\s+|(?=\())){0,2}
    (?:\((?P<inside>[a-z])\)|(?P<bare>[a-z])(?:[.:)](?=\s|$)|$))
    (?P<rest>.*)
    """,
    re.VERBOSE | re.DOTALL,
)


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """1 for each prediction that is the right choice, else 0; 0 where there are no references.

    Raises:
        DataError: a sample's references are not a text and a letter.
    """
    return Score.mean_of(
        [
            float(bool(right) and _is_right(prediction, *_choice(index, right)))
            for index, (prediction, right) in enumerate(zip(predictions, references, strict=True))
        ]
    )


def _choice(index: int, right: Sequence[str]) -> tuple[str, str]:
    """The text and the letter of the right choice."""
    if len(right) != 2 or not re.fullmatch("[A-Za-z]", right[1]):
        raise DataError(
            f"sample {index}: multiple_choice takes two references, the right choice's text and its letter; "
            f"found {list(right)}"
        )
    return normalise(right[0]), right[1].lower()


def _is_right(prediction: str, text: str, letter: str) -> bool:
    named = LETTER.fullmatch(prediction.strip().lower())
    alone = named is not None and named["rest"] in ("", ".")
    if not alone and normalise(prediction) == text:
        return True
    return named is not None and letter in (named["inside"], named["bare"])
