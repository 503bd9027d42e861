"""One sample of one task: what a model is asked, with what images and audio, and what it should answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["user", "assistant", "system"]


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
        references: the answers that count as right; the first is the one trained on.
        audios: paths, likewise.
    """

    id: str
    task: str
    turns: tuple[Turn, ...]
    images: tuple[Path, ...] = ()
    references: tuple[str, ...] = field(default=())
    audios: tuple[Path, ...] = ()

    @property
    def prompt(self) -> str:
        """The last question, as a person would read it."""
        return next(turn.text for turn in reversed(self.turns) if turn.role == "user")
