"""CIDEr-D against pycocoevalcap, on real text and on strings that nobody would write; and by hand."""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider
from real_text import captions, docstrings

from equipoise.metrics.cider import score

SENTENCES = st.lists(st.sampled_from(["a", "b", "c", "A", "b.", "é"]), max_size=9).map(" ".join)


def coco(predictions: list[str], references: list[list[str]]) -> tuple[float, list[float]]:
    keyed = {index: [prediction] for index, prediction in enumerate(predictions)}
    value, samples = Cider().compute_score(dict(enumerate(references)), keyed)
    return float(value), samples.tolist()


@pytest.mark.parametrize("texts", [captions, docstrings])
def test_it_agrees_with_pycocoevalcap_on_real_text(texts):
    predictions, references = texts()
    result = score(predictions, references)
    value, samples = coco(predictions, references)
    assert result.samples == pytest.approx(samples, rel=0, abs=1e-9)
    assert result.value == pytest.approx(value, rel=0, abs=1e-9)
    assert 0.1 < value < 9


@given(samples=st.lists(st.tuples(SENTENCES, st.lists(SENTENCES, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_it_agrees_with_pycocoevalcap_on_odd_text(samples):
    predictions, references = [sample[0] for sample in samples], [sample[1] for sample in samples]
    if any(reference for allowed in references for reference in allowed):  # pycocoevalcap fails where all are empty
        result = score(predictions, references)
        value, expected = coco(predictions, references)
        assert result.samples == pytest.approx(expected, rel=0, abs=1e-9)
        assert result.value == pytest.approx(value, rel=0, abs=1e-9)


def test_a_pair_by_hand():
    # Both documents have "a"; all else is in one of them or none, so weighs log 2. Of the first sample, the unigrams
    # "b" and "c" against "b": cosine 1/sqrt(2); the bigrams "a b" and "b c" against "a b": likewise; nothing longer is
    # common. One word more than the reference: exp(-1/72).
    predictions, references = ["a b c", "x"], [["a b"], ["a d"]]
    expected = 10 * math.exp(-1 / 72) * (1 / math.sqrt(2) + 1 / math.sqrt(2)) / 4
    assert score(predictions, references).samples == pytest.approx((expected, 0))
    assert score(predictions, references).value == pytest.approx(expected / 2)


def test_repeating_a_word_does_not_pay():
    # Clipped: the second "b" adds to the norm and not to the product.
    once, twice = (score([prediction, "x"], [["b"], ["d"]]).samples[0] for prediction in ("b", "b b"))
    assert once == pytest.approx(10 / 4)
    assert twice == pytest.approx(10 / 4 * math.exp(-1 / 72) / 2)


def test_a_single_sample_has_no_rare_words():
    assert score(["a dog runs"], [["a dog runs"]]).samples == (0.0,)


def test_a_sample_without_references_is_no_document():
    with_it, without = (
        (["a dog runs", "a cat sits", "x"], [["a dog"], ["a cat"], []]),
        (["a dog runs", "a cat sits"], [["a dog"], ["a cat"]]),
    )
    assert score(*with_it).samples == (*score(*without).samples, 0.0)


def test_raw_words_keep_case_and_punctuation_and_ptb_words_do_not():
    predictions, references = ["A dog's barking!", "x"], [["a dog 's barking ."], ["y"]]
    assert score(predictions, references, tokenizer="raw").value == 0
    assert score(predictions, references, tokenizer="ptb").samples == pytest.approx((10, 0))


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(ValueError, match="tokenizer: found 'spacy'; allowed: raw, ptb"):
        score(["a"], [["a"]], tokenizer="spacy")


def test_twenty_thousand_samples_take_seconds():
    draw = random.Random(0)
    words = [f"w{int(draw.expovariate(0.01))}" for _ in range(10_000)]
    texts = [" ".join(draw.choices(words, k=10)) for _ in range(60_000)]
    started = time.process_time()
    score(texts[:20_000], [[texts[index], texts[index + 20_000]] for index in range(20_000, 40_000)])
    assert time.process_time() - started < 20  # 2 on one core
