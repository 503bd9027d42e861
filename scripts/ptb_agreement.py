"""How often the PTB-like tokenizer of CIDEr gives the words that Stanford's gives.

    python scripts/ptb_agreement.py [FILE]

Needs Java (Debian: default-jre-headless), which pycocoevalcap's PTBTokenizer starts. FILE holds a text a line. Without
it, the captions and docstring sentences of tests/metrics/real_text.py are taken, and the captions' CIDEr is computed
both ways. Prints how many texts have the same words, how many words are the same (F1 of the two bags), and what
differs.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from equipoise.metrics import cider, ptb


def stanford(texts: Sequence[str]) -> list[str]:
    """The words of each text as COCO's pipeline has them, joined by spaces."""
    # Empty lines at the end would be lost between Java and Python.
    words = PTBTokenizer().tokenize({index: [{"caption": text}] for index, text in enumerate([*texts, "end"])})
    return [words[index][0] for index in range(len(texts))]


def compare(name: str, texts: Sequence[str]) -> None:
    pairs = [(theirs, " ".join(ptb.tokens(text))) for text, theirs in zip(texts, stanford(texts), strict=True)]
    bags = [(Counter(theirs.split()), Counter(ours.split())) for theirs, ours in pairs]
    common = sum((theirs & ours).total() for theirs, ours in bags)
    words = sum(theirs.total() + ours.total() for theirs, ours in bags)
    same = sum(theirs == ours for theirs, ours in pairs)
    print(f"{name}: {same} of {len(texts)} texts the same ({same / len(texts):.2%}), words {2 * common / words:.3%}")
    for theirs, ours in [pair for pair in pairs if pair[0] != pair[1]][:10]:
        print(f"    Stanford: {theirs}\n    ours:     {ours}")


def compare_cider(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    answers = {index: [words] for index, words in enumerate(stanford(predictions))}
    allowed = {index: stanford(each) for index, each in enumerate(references)}
    theirs, samples = Cider().compute_score(allowed, answers)
    ours = cider.score(predictions, references, tokenizer="ptb")
    largest = max(abs(one - other) for one, other in zip(ours.samples, samples, strict=True))
    print(f"{name}: CIDEr {ours.value:.6f}, COCO's pipeline {theirs:.6f}, largest difference of a sample {largest:.2g}")


def main() -> None:
    if len(sys.argv) > 1:
        compare(sys.argv[1], Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/metrics"))
    from real_text import captions, docstrings

    for name, (predictions, references) in (("captions", captions()), ("docstrings", docstrings())):
        compare(name, [*predictions, *(text for each in references for text in each)])
    compare_cider("captions", *captions())


if __name__ == "__main__":
    main()
