r"""CIDEr-D (Vedantam et al., 2015), as pycocoevalcap's `Cider` computes it.

$$ \mathrm{CIDEr}(c, R) = \frac{10}{4 |R|} \sum_{r \in R} e^{-\frac{(l_c - l_r)^2}{2 \sigma^2}}
   \sum_{n=1}^{4} \frac{\sum_g \min(c_g, r_g) \, r_g}{\lVert c \rVert_n \, \lVert r \rVert_n}, \quad \sigma = 6 $$

$c$ is the prediction, $R$ its references. $c_g$ is how often the n-gram $g$ occurs in $c$ times $\log N - \log d_g$: of
the $N$ samples scored, $d_g$ have it in a reference (1 where none has). The norms are over all n-grams of length $n$;
the term is 0 where one of them is. $l$ counts words.

A sample's value is 0 to 10 and depends on which other samples are scored with it; of a single sample it is 0. Tables
multiply the mean by 100, or, like CoTBal, print it as it is.

`tokenizer="raw"` splits at white space and changes nothing else, which is what CoTBal's numbers are; `"ptb"` is COCO's
pipeline (`metrics/ptb.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from equipoise.metrics import ptb
from equipoise.metrics.score import Score

Tokenizer = Literal["raw", "ptb"]
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"raw": str.split, "ptb": ptb.tokens}
LONGEST = 4
SIGMA = 6.0


def score(predictions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: Tokenizer = "raw") -> Score:
    """CIDEr-D of each prediction; 0 where there are no references, which count for no document either.

    Args:
        predictions: one a sample.
        references: those of each sample.
        tokenizer: `raw` or `ptb`.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer: found {tokenizer!r}; allowed: {', '.join(TOKENIZERS)}")
    pairs = list(zip(predictions, references, strict=True))
    # One after the other: the predictions (caption i is that of sample i), then the references of all samples.
    captions = [prediction for prediction, _ in pairs] + [each for _, allowed in pairs for each in allowed]
    references_of = np.array([len(allowed) for _, allowed in pairs], dtype=np.int64)
    sample_of = np.concatenate([np.arange(len(pairs)), np.repeat(np.arange(len(pairs)), references_of)])
    similarity = _similarities([TOKENIZERS[tokenizer](caption) for caption in captions], sample_of, len(pairs))
    totals = np.bincount(sample_of[len(pairs) :], similarity, minlength=len(pairs))
    return Score.mean_of((10 * totals / np.maximum(references_of, 1)).tolist())


def _similarities(captions: Sequence[Sequence[str]], sample_of: np.ndarray, samples: int) -> np.ndarray:
    """How similar each reference is to the prediction of its sample, 0 to 1.

    Args:
        captions: the words of the predictions, then of the references.
        sample_of: the sample of each caption, shape (captions,).
        samples: the number of predictions.

    Returns:
        Shape (references,).
    """
    lengths = np.array([len(words) for words in captions], dtype=np.int64)
    caption_of = np.repeat(np.arange(len(captions)), lengths)
    vocabulary: dict[str, int] = {}
    words = np.array(
        [vocabulary.setdefault(word, len(vocabulary)) for caption in captions for word in caption], dtype=np.int64
    )
    penalty = np.exp(-((lengths[samples:] - lengths[sample_of[samples:]]) ** 2) / (2 * SIGMA**2))
    documents = len(np.unique(sample_of[samples:]))

    total = np.zeros(len(captions) - samples)
    grams = words
    for length in range(1, LONGEST + 1):
        if length > 1:  # an n-gram is an (n-1)-gram and the word after it
            grams = np.unique(grams[:-1] * len(vocabulary) + words[length - 1 :], return_inverse=True)[1]
        inside = caption_of[: len(grams)] == caption_of[length - 1 :]
        total += _cosines(caption_of[: len(grams)][inside], grams[inside], sample_of, samples, documents)
    return penalty * total / LONGEST


def _cosines(
    caption_of: np.ndarray, grams: np.ndarray, sample_of: np.ndarray, samples: int, documents: int
) -> np.ndarray:
    """The clipped cosine of each reference and its sample's prediction, over n-grams of one length.

    Args:
        caption_of: where each n-gram was found, shape (found,).
        grams: which it is, shape (found,).
        sample_of: the sample of each caption.
        samples: the number of predictions.
        documents: the number of samples that have references.
    """
    kinds = int(grams.max(initial=0)) + 1
    keys, counts = np.unique(caption_of * kinds + grams, return_counts=True)
    caption, gram = np.divmod(keys, kinds)
    in_reference = caption >= samples

    in_documents = np.unique(sample_of[caption[in_reference]] * kinds + gram[in_reference]) % kinds
    frequency = np.bincount(in_documents, minlength=kinds)
    weights = counts * (np.log(max(1, documents)) - np.log(np.maximum(1, frequency)))[gram]
    norms = np.sqrt(np.bincount(caption, weights**2, minlength=len(sample_of)))

    # The weight of each reference's n-gram in the prediction of its sample; 0 where that has no such n-gram.
    weight, reference = weights[in_reference], caption[in_reference]
    wanted = sample_of[reference] * kinds + gram[in_reference]
    place = np.searchsorted(keys, wanted)  # never past the end: a reference's own key is above all predictions'
    weight_in_prediction = np.where(keys[place] == wanted, weights[place], 0)
    products = np.bincount(reference, np.minimum(weight_in_prediction, weight) * weight, minlength=len(sample_of))
    scale = norms * norms[sample_of]
    return np.divide(products, scale, out=np.zeros(len(sample_of)), where=scale > 0)[samples:]
