"""ROUGE-L against the COCO scorer and Google's, on real text and on strings that nobody would write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.rouge.rouge import Rouge
from real_text import captions, docstrings
from rouge_score.rouge_scorer import RougeScorer

from equipoise.metrics.rouge_l import longest_common_subsequence, score

WORDS = st.lists(st.sampled_from(["a", "b", "c", "A", "b.", "", "é", "x\n"]), max_size=12)
SENTENCES = WORDS.map(" ".join)


def coco(predictions: list[str], references: list[list[str]]) -> list[float]:
    keyed = {index: [prediction] for index, prediction in enumerate(predictions)}
    return Rouge().compute_score(dict(enumerate(references)), keyed)[1].tolist()


def google(predictions: list[str], references: list[list[str]]) -> float:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(predictions, references, strict=True)
    values = [scorer.score_multi(allowed, prediction)["rougeL"].fmeasure for prediction, allowed in pairs]
    return sum(values) / len(values)


@pytest.mark.parametrize("texts", [captions, docstrings])
def test_it_agrees_with_the_coco_scorer_and_with_googles_on_real_text(texts):
    predictions, references = texts()
    result = score(predictions, references)
    assert result.samples == pytest.approx(coco(predictions, references), rel=0, abs=1e-12)
    assert result.also["f1"] == pytest.approx(google(predictions, references), rel=0, abs=1e-12)
    assert 0.2 < result.value < 0.9


@given(samples=st.lists(st.tuples(SENTENCES, st.lists(SENTENCES, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_it_agrees_with_both_on_odd_text(samples):
    predictions, references = [sample[0] for sample in samples], [sample[1] for sample in samples]
    result = score(predictions, references)
    assert result.samples == pytest.approx(coco(predictions, references), rel=0, abs=1e-12)
    assert result.also["f1"] == pytest.approx(google(predictions, references), rel=0, abs=1e-12)


@given(one=st.lists(st.sampled_from("abcd"), max_size=40), other=st.lists(st.sampled_from("abcd"), max_size=40))
def test_the_longest_common_subsequence_is_the_textbooks(one, other):
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for row, word in enumerate(one, start=1):
        for column, against in enumerate(other, start=1):
            same = table[row - 1][column - 1] + 1 if word == against else 0
            table[row][column] = max(same, table[row - 1][column], table[row][column - 1])
    assert longest_common_subsequence(one, other) == table[-1][-1]


def test_a_pair_by_hand():
    # The common subsequence is "the dog the park": 4 of 5 and of 7 words; F = 2.44 x 4/5 x 4/7 / (4/7 + 1.44 x 4/5).
    result = score(["the dog in the park"], [["the big dog runs across the park"]])
    assert result.value == pytest.approx(2.44 * (4 / 5) * (4 / 7) / (4 / 7 + 1.44 * 4 / 5))
    assert result.also["f1"] == pytest.approx(2 * 4 / (5 + 7))


def test_precision_and_recall_may_come_from_different_references():
    # Precision 1 by the long reference, recall 1 by the short one.
    result = score(["a b"], [["a b c d", "a"]])
    assert result.value == 1
    assert result.also["f1"] == pytest.approx(2 / 3)


def test_case_and_punctuation_count_for_coco_and_not_for_f1():
    result = score(["A dog, barking."], [["a dog barking"]])
    assert result.value == 0
    assert result.also["f1"] == 1


def test_f1_is_the_mean_over_samples():
    assert score(["a b", "c d"], [["a b"], ["c x"]]).also["f1"] == pytest.approx((1 + 0.5) / 2)


def test_no_references_score_zero_in_both():
    result = score(["a b"], [[]])
    assert result.value == 0
    assert result.also == {"f1": 0}
