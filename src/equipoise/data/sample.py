"""One sample of one task: what a model is asked, with what images and audio, and what it should answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["user", "assistant", "system"]
#: Left, top, right and bottom edge as shares, 0 to 1, of the image's width and height.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation about zero or more images and audio clips.

    Attributes:
        id: unique within its task and split.
        task: the task's name in the recipe.
        turns: begins with a user turn (after an optional system turn) and ends with the assistant's answer; images,
            then audio clips, precede the text of the first user turn.
        images: paths, opened when the sample is collated.
        references: the answers that count as right, in the form the task's metric reads; none where the owners keep
            them secret.
        audios: paths, likewise.
        box: the region that the sample is about, where there is one.
    """

    id: str
    task: str
    turns: tuple[Turn, ...]
    images: tuple[Path, ...] = ()
    references: tuple[str, ...] = ()
    audios: tuple[Path, ...] = ()
    box: Box | None = None

    @property
    def prompt(self) -> str:
        """The last question, as a person would read it."""
        return next(turn.text for turn in reversed(self.turns) if turn.role == "user")


def exchange(question: str, answer: str) -> tuple[Turn, Turn]:
    """The turns of one question and its answer."""
    return Turn("user", question), Turn("assistant", answer)
