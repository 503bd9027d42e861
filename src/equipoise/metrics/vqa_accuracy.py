r"""VQA accuracy (Antol et al., 2015; Goyal et al., 2017): how many of ten people gave the predicted answer.

$$ \mathrm{accuracy} = \frac{1}{n} \sum_{i=1}^{n} \min\left(1, \frac{m_{-i}}{\min(3, n - 1)}\right) $$

$n$ is the number of references (10 in VQAv2 and TextVQA) and $m_{-i}$ how many of them, without the i-th, equal the
prediction. Three matches beside the one left out give 1, so that people, scored against each other, can reach it.

Answers are compared in the official normal form, whose rules are those of `vqaEval.py` in the owners' repository
(GT-Vision-Lab/VQA). Where this departs from that script:

- Both sides are normalised always. The script does so only where the references differ, so that "Yes." is wrong where
  all ten people said "yes". TextVQA's evaluator and everybody who submits an LLM's answers normalise always.
- With fewer than four references the 3 becomes $n - 1$, and a single reference need only be matched; the script could
  not give 1 there. The datasets above have ten.
- All periods that no digit follows are removed; the script stops at the 32nd.

TextVQA's evaluator (M4C's, in Pythia and MMF) holds a copy of the rules that first drops every comma and question mark
and parts "'s" from its word. That changes which answers are equal only where a mark has no space beside it: "red,blue"
equals "redblue" there, and "red blue" here; "12,000-15,000" equals "12000 15000" there, and "1200015000" here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from equipoise.metrics.score import Score

# Contractions that are restored where one apostrophe was left out: cant -> can't, couldn'tve -> couldn't've. The
# official table has no im, ive, id've or i'dve: it writes them with a capital I, and answers are lower-cased before.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# The one entry of the official table that takes an apostrophe away.
RESTORED = {"somebody'd": "somebodyd"} | {
    full[:position] + full[position + 1 :]: full
    for full in CONTRACTIONS.split()
    for position, character in enumerate(full)
    if character == "'"
}
NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def normalise(answer: str) -> str:
    """The official normal form of an answer.

    - New lines and tabs are spaces; outer space goes.
    - A punctuation mark becomes a space; or nothing, where the answer has it beside a space anywhere, or has a comma
      between digits anywhere. Apostrophes and colons stay.
    - A period goes unless a digit follows it.
    - Lower case; none to ten as digits; no articles; contractions get their apostrophe back; single spaces.
    """
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    comma_in_number = re.search(r"\d,\d", answer) is not None
    marks = {
        ord(mark): "" if comma_in_number or f"{mark} " in answer or f" {mark}" in answer else " "
        for mark in PUNCTUATION
    }
    words = re.sub(r"\.(?!\d)", "", answer.translate(marks)).lower().split()
    words = [NUMBERS.get(word, word) for word in words]
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """The accuracy of each prediction against all of its references; 0 where there are none."""
    return Score.mean_of(
        [
            _leave_one_out(normalise(prediction), [normalise(reference) for reference in allowed])
            for prediction, allowed in zip(predictions, references, strict=True)
        ]
    )


def _leave_one_out(prediction: str, references: Sequence[str]) -> float:
    count, matches = len(references), references.count(prediction)
    if matches == 0 or count == 1:
        return float(matches)
    needed = min(3, count - 1)
    left_out_matches, left_out_differs = min(1.0, (matches - 1) / needed), min(1.0, matches / needed)
    return (matches * left_out_matches + (count - matches) * left_out_differs) / count
