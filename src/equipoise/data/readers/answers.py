"""What the readers of question answering share: response formats, choices under letters, and which answer is learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from string import ascii_uppercase as LETTERS
from typing import Any

from equipoise.data.readers.reader import items_of, text_of
from equipoise.texts import shown

#: CoTBal's Table 1 and LLaVA-1.5.
SHORT_ANSWER = "Answer the question using a single word or phrase."
#: LLaVA-1.5's, for choices under letters.
OPTION_LETTER = "Answer with the option's letter from the given choices directly."


def with_ids(rows: Iterable[Any], key: str) -> Iterator[tuple[str, Any]]:
    """Give each row its id, which stands under `key`; a row that has none gets its place instead, "item 3"."""
    for number, row in enumerate(rows, start=1):
        known = isinstance(row, dict) and isinstance(row.get(key), str | int)
        yield (str(row[key]) if known else f"item {number}"), row


def number_of(value: Any, name: str) -> int:
    """The value, which must be a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}; expected a whole number")
    return value


def texts_of(value: Any, name: str) -> tuple[str, ...]:
    """The value, which must be a list of at least one text; annotators' answers may be empty ones."""
    texts = items_of(value, name)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"one of {name} is {shown(text)}; expected a text")
    return tuple(texts)


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that most annotators gave, the first one of several; empty ones do not count."""
    counts = Counter(answer.strip() for answer in answers)
    del counts[""]
    if not counts:
        raise ValueError("all answers are empty; expected a text")
    return counts.most_common(1)[0][0]


def choices_of(value: Any) -> list[str]:
    """The choices of a question: a list of texts, no more than there are letters."""
    choices = [text_of(choice, "a choice") for choice in items_of(value, "choices")]
    if len(choices) > len(LETTERS):
        raise ValueError(f"there are {len(choices)} choices; at most {len(LETTERS)} are allowed")
    return choices


def lettered(question: str, choices: Sequence[str]) -> str:
    """The question with its choices below it, each under its letter."""
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices))])


def right_choice(choices: Sequence[str], index: Any, name: str) -> tuple[str, str]:
    """The text of the right choice and its letter: the references that `multiple_choice` reads."""
    number = number_of(index, name)
    if not 0 <= number < len(choices):
        raise ValueError(f"{name} is {number}; allowed: 0 to {len(choices) - 1}")
    return choices[number], LETTERS[number]
