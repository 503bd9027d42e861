"""What the runs answered: of each task's questions, those worth a look, with the answers of all runs side by side.

`predictions/TASK.jsonl` may hold more than fits into memory: it is read once for the scores, and a second time where
the chosen lines are. A line that is damaged is passed over, as is a value that is not what `equipoise evaluate` writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from equipoise.report.lines import line_at, lines_of
from equipoise.report.numbers import number

MOST, EACH = 240, 60
"""Questions that the page shows at most, of all tasks together and of each."""

SHARES = (0.5, 0.25, 0.25)
"""Of a task's questions: those answered worst, those answered best, those that the runs answer most unlike."""


@dataclass(frozen=True)
class Answer:
    """One run's answer.

    Attributes:
        run: its number.
        score: None where the right answer is not known.
    """

    run: int
    text: str
    score: float | None


@dataclass(frozen=True)
class Question:
    """One question and what the runs answered.

    Attributes:
        images, audios: paths, as the evaluation saw them.
        answers: in the order of the runs; a run that was not asked has none.
    """

    identifier: str
    prompt: str
    references: Sequence[str]
    images: Sequence[str]
    audios: Sequence[str]
    answers: Sequence[Answer]

    @property
    def score(self) -> float | None:
        """The mean over the runs."""
        return _mean([answer.score for answer in self.answers])

    @property
    def spread(self) -> float:
        """The best run's score less the worst one's."""
        return _spread([answer.score for answer in self.answers])


@dataclass(frozen=True)
class TaskPredictions:
    """One task's questions.

    Attributes:
        asked: how many there are.
        questions: some of them, the worst answered first.
    """

    task: str
    asked: int
    questions: Sequence[Question]


@dataclass
class _Place:
    """Where one question's answers are.

    Attributes:
        order: its number in the first file that has it.
        key: of the question; the file may be another one by the time that its line is read again.
        lines: run and position in the run's file.
    """

    order: int
    key: bytes
    lines: list[tuple[int, int]] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)

    @cached_property
    def mean(self) -> float | None:
        """Of the scores there are."""
        return _mean(self.scores)

    @cached_property
    def spread(self) -> float:
        """The largest of them less the smallest."""
        return _spread(self.scores)


def read_predictions(folders: Sequence[Path], most: int = MOST) -> list[TaskPredictions]:
    """Choose and read what the page shows.

    Args:
        folders: each run's `predictions`, in the order of the runs.
        most: questions of all tasks together.

    Returns:
        The tasks that any of the runs was asked, by name.
    """
    names = sorted({file.name for folder in folders for file in _files(folder)})
    found = []
    for name in names:
        files = [folder / name for folder in folders]
        places = _index(files)
        if places:
            chosen = choose(list(places.values()), min(EACH, max(4, most // len(names))))
            questions = [question for place in chosen if (question := _question(files, place)) is not None]
            questions.sort(key=lambda question: (question.score is None, question.score or 0.0))  # as now read
            found.append(TaskPredictions(name.removesuffix(".jsonl"), len(places), questions))
    return found


def choose(places: Sequence[_Place], most: int) -> list[_Place]:
    """Some of the places, worst first: the worst, the best and those that the runs differ most on.

    Of places with equal scores the earlier is taken; those without a score are last.
    """
    worst_first = sorted(places, key=lambda place: (place.mean is None, place.mean or 0.0, place.order))
    scored = [place for place in worst_first if place.mean is not None]
    best_first = sorted(scored, key=lambda place: (-(place.mean or 0.0), place.order))
    unlike = sorted((place for place in scored if place.spread > 0), key=lambda place: (-place.spread, place.order))
    kept: dict[int, _Place] = {}
    orders = (worst_first, best_first, unlike)
    for order, count in [*zip(orders, (int(share * most) for share in SHARES)), (worst_first, most)]:
        fresh = (place for place in order if place.order not in kept)
        kept |= {place.order: place for _, place in zip(range(min(count, most - len(kept))), fresh)}
    return [place for place in worst_first if place.order in kept]


def _files(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.glob("[!.]*.jsonl") if file.is_file()]
    except OSError:
        return []


def _index(files: Sequence[Path]) -> dict[bytes, _Place]:
    """Where the answers to each question are. Ids can be those of another split: the words count too."""
    places: dict[bytes, _Place] = {}
    for run, file in enumerate(files):
        for position, line in _lines(file):
            key = _key(line)
            place = places.setdefault(key, _Place(len(places), key))
            if any(known == run for known, _ in place.lines):
                continue  # the same question again
            place.lines.append((run, position))
            place.scores.append(number(line.get("score")))
    return places


def _key(line: dict[str, Any]) -> bytes:
    return hashlib.blake2b(json.dumps([line.get("id"), line.get("prompt")]).encode(), digest_size=16).digest()


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Position and content of each line that holds an object."""
    try:
        for position, text in lines_of(file):
            line = _object(text)
            if line is not None:
                yield position, line
    except OSError:
        return


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _question(files: Sequence[Path], place: _Place) -> Question | None:
    lines: list[tuple[int, dict[str, Any]]] = []
    for run, position in place.lines:
        try:
            line = _object(line_at(files[run], position))
        except OSError:
            line = None
        if line is not None and _key(line) == place.key:  # else the file has just been replaced
            lines.append((run, line))
    if not lines:
        return None
    _, first = lines[0]
    return Question(
        identifier=_text(first.get("id")),
        prompt=_text(first.get("prompt")),
        references=list(dict.fromkeys(_texts(first.get("references")))),
        images=_texts(first.get("images")),
        audios=_texts(first.get("audios")),
        answers=[Answer(run, _text(line.get("prediction")), number(line.get("score"))) for run, line in lines],
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _texts(value: object) -> list[str]:
    return [_text(one) for one in value] if isinstance(value, list) else []


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _spread(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return max(known) - min(known) if known else 0.0
