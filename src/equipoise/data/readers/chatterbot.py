"""ChatterBot's corpus (Cox and contributors): short English conversations, text alone; BSD, packaged as
`chatterbot-corpus` 1.3.3.

Layout, as its README describes it: `data/english/TOPIC.yml`, with `categories` and `conversations`, a list of lists of
utterances that two people say in turn. A conversation becomes one sample of as many questions and answers; an odd last
utterance, which nobody answers, is left out. In `computers.yml` and `emotion.yml` the utterances after the first are
other answers to it, and each makes a sample. One conversation of `trivia.yml` lacks a dash, and with it its answer: it
is left out.

Many conversations begin alike (a hundred with "My printer is not printing."). The split is drawn from the first
utterance, so that these are in one:

| split | samples |
| --- | --- |
| train | 1,641 |
| validation | 235 |
| test | 333 |

There is no right answer to most, and so no metric; validation and test are for the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from equipoise.data.readers.files import note, opening
from equipoise.data.readers.reader import Flaw, Reader, check_split, items_of, samples_of, text_of
from equipoise.data.readers.splits import SPLITS, split_of, words
from equipoise.data.sample import Sample, Turn, exchange
from equipoise.errors import DataError
from equipoise.packages import CHATTERBOT, fetch
from equipoise.texts import shown
from equipoise.yaml_reading import FastLoader, load

ENGLISH = Path("data/english")
SEVERAL_ANSWERS = ("computers", "emotion")
WITHOUT_DASH = "trivia-14"


def read(task: str, split: str, path: Path | None = None) -> Iterator[Sample | Flaw]:
    """Read one split.

    Args:
        task: the task's name, copied into each sample.
        split: `train`, `validation` or `test`.
        path: the folder that holds `data/`; the packaged copy when None.

    Raises:
        DataError: an unknown split, or files that are not the corpus's.
    """
    check_split(task, "chatterbot", split, SPLITS)
    folder = note((path if path is not None else fetch(CHATTERBOT) / "chatterbot_corpus") / ENGLISH)
    sources = sorted(folder.glob("*.yml"))
    if not sources:
        raise DataError(f"task {task}: {folder} holds no conversations; expected files TOPIC.yml")

    def make(place_and_conversation: tuple[str, Any]) -> list[Sample]:
        place, conversation = place_and_conversation
        if place == WITHOUT_DASH and isinstance(conversation, str):
            return []
        first, *others = [text_of(utterance, "an utterance") for utterance in items_of(conversation, "conversation")]
        if not others:
            raise ValueError(f"nobody answers {shown(first)}; expected at least two utterances")
        if split_of(words(first)) != split:
            return []
        dialogues: dict[str, tuple[Turn, ...]]
        if place.partition("-")[0] in SEVERAL_ANSWERS:
            dialogues = {f"{place}-{number}": exchange(first, answer) for number, answer in enumerate(others, start=1)}
        else:
            dialogues = {place: _turns([first, *others])}
        return [Sample(name, task, turns, references=(turns[-1].text,)) for name, turns in dialogues.items()]

    for source in sources:
        places = (
            (f"{source.stem}-{number}", item) for number, item in enumerate(_conversations(task, source), start=1)
        )
        yield from samples_of(((place, (place, item)) for place, item in places), make, source)


READER = Reader(read, SPLITS, needs_path=False)


def _turns(utterances: list[str]) -> tuple[Turn, ...]:
    pairs = zip(utterances[::2], utterances[1::2], strict=False)
    return tuple(turn for question, answer in pairs for turn in exchange(question, answer))


def _conversations(task: str, source: Path) -> list[Any]:
    with opening(task, source) as file:
        try:
            content = load(file.read(), FastLoader)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise DataError(f"task {task}: {source} is no YAML ({reason:.200})") from error
    conversations = content.get("conversations") if isinstance(content, dict) else None
    if not isinstance(conversations, list):
        raise DataError(f"task {task}: {source} has no list of conversations")
    return conversations
