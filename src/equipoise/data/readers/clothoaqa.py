"""ClothoAQA (Lipping et al. 2022): questions on sounds, each answered by three people.

Layout, as Zenodo's record 6473207 has it:

```
clotho_aqa_{train,val,test}.csv   file_name, QuestionText, answer, confidence: one person's answer a row
audio_files/NAME.wav              audio_files.zip, unpacked
```

All rows of one file and question are one sample. Its references are the answers, as often as they were given, without
empty ones; the answer to learn is the one given most often, the first where several were. What `confidence` says of an
answer (yes, maybe, no) is not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from equipoise.data.readers.answers import SHORT_ANSWER
from equipoise.data.readers.files import csv_rows, inside
from equipoise.data.readers.reader import Flaw, Reader, check_split, samples_of, text_of
from equipoise.data.sample import Sample, exchange

FILES = {
    "train": "clotho_aqa_train.csv",
    "validation": "clotho_aqa_val.csv",
    "test": "clotho_aqa_test.csv",
}
COLUMNS = ("file_name", "QuestionText", "answer", "confidence")


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split; a sample's id is the clip's name and the question's number about it, "rain.wav#2"."""
    check_split(task, "clothoaqa", split, FILES)
    source = path / FILES[split]
    answers: dict[tuple[str, str], list[str]] = {}
    for _, row in csv_rows(task, source, COLUMNS):
        answers.setdefault((row["file_name"], row["QuestionText"]), []).append(row["answer"])

    def questions() -> Iterator[tuple[str, tuple[str, str, str, list[str]]]]:
        asked: Counter[str] = Counter()
        for (clip, question), given in answers.items():
            asked[clip] += 1
            id = f"{clip}#{asked[clip]}"
            yield id, (id, clip, question, given)

    def make(item: tuple[str, str, str, list[str]]) -> Sample:
        id, clip, question, given = item
        references = tuple(answer.strip() for answer in given if answer and answer.strip())
        return Sample(
            id=id,
            task=task,
            turns=exchange(text_of(question, "QuestionText"), _most_given(references)),
            audios=(inside(path / "audio_files", clip, "audio"),),
            references=references,
        )

    yield from samples_of(questions(), make, source)


def _most_given(answers: Sequence[str]) -> str:
    """The answer given most often, whatever its case; the first where several were."""
    if not answers:
        raise ValueError("all answers are empty; expected a text")
    times = Counter(answer.casefold() for answer in answers)
    return max(answers, key=lambda answer: times[answer.casefold()])


READER = Reader(read, splits=tuple(FILES), response_format=SHORT_ANSWER)
