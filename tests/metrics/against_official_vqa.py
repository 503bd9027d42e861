"""Runs VQA accuracy beside the owners' own script, of which this project holds no copy.

    python tests/metrics/against_official_vqa.py path/to/vqaEval.py

`vqaEval.py` is PythonEvaluationTools/vqaEvaluation/vqaEval.py of GT-Vision-Lab/VQA. It is Python 2: its print
statements are taken out before it is run. Compares the normal forms of the answers in awkward_answers.py and of random
ones, and the accuracies of random predictions against ten random answers that are not all the same.
"""

from __future__ import annotations

import random
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from awkward_answers import AWKWARD

from equipoise.metrics.vqa_accuracy import CONTRACTIONS, NUMBERS, normalise, score

PIECES = [*CONTRACTIONS.split(), *(word.replace("'", "") for word in CONTRACTIONS.split()), *NUMBERS, *AWKWARD]
PIECES += ["a", "An", "THE", "0", "12", "1,000", "dog", "Red", "é", *";/[]\"{}()=+\\_-><@`,?!.:'’&%$# \n\t.,.,"]
ANSWERS = ["two", "2", "Two.", "a dog", "dog", "dogs", "t-shirt", "t shirt", "1,000", "1000", "isnt", "isn't"]


def official(path: str) -> Any:
    """An instance of the owners' `VQAEval` without any data."""
    source = re.sub(r'print ".*"', "pass", Path(path).read_text(encoding="utf-8")).expandtabs(8)
    namespace: dict[str, Any] = {}
    with warnings.catch_warnings(action="ignore"):
        exec(compile(source, path, "exec"), namespace)
    return namespace["VQAEval"](SimpleNamespace(getQuesIds=list), None)


def official_form(evaluation: Any, answer: str) -> str:
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    return evaluation.processDigitArticle(evaluation.processPunctuation(answer))


def official_accuracy(evaluation: Any, prediction: str, references: list[str]) -> float:
    answers = [{"answer": reference, "answer_id": number} for number, reference in enumerate(references)]
    truth = {"question_type": "", "answer_type": "", "answers": answers}
    evaluation.vqa = SimpleNamespace(qa={0: truth})
    evaluation.vqaRes = SimpleNamespace(qa={0: {"answer": prediction}})
    evaluation.n = 12
    evaluation.updateProgress = lambda progress: None
    evaluation.evaluate([0])
    return evaluation.accuracy["overall"] / 100


def main(path: str, count: int = 200_000) -> None:
    evaluation, draw = official(path), random.Random(0)
    drawn = (
        "".join(draw.choice(PIECES) + draw.choice(["", " "]) for _ in range(draw.randint(1, 8))) for _ in range(count)
    )
    forms = [*AWKWARD, *(answer for answer in drawn if answer.count(".") <= 32)]
    differing = [answer for answer in forms if official_form(evaluation, answer) != normalise(answer)]
    print(f"normal forms: {len(differing)} of {len(forms)} differ", *differing[:10], sep="\n")

    wrong = total = 0
    while total < count // 20:
        prediction, references = draw.choice(ANSWERS), draw.choices(ANSWERS[: draw.randint(2, len(ANSWERS))], k=10)
        if len(set(references)) > 1:
            found = score([prediction], [references]).value
            wrong += abs(found - official_accuracy(evaluation, prediction, list(references))) > 1e-11
            total += 1
    print(f"accuracies: {wrong} of {total} differ")


if __name__ == "__main__":
    main(sys.argv[1])
