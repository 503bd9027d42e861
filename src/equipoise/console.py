"""The terminal, on which a text is a text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from equipoise.texts import printable


class PlainConsole(Console):
    """Prints names as they are: they come from files, and none of them is markup, emoji or an escape sequence.

    This holds for strings, also in tables and rules; a `Text` is printed as whoever made it wants it.
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As Console's, with escapes for what would steer the terminal."""
        return super().render_str(printable(text, "\n\t"), **options)


def plain(text: str, kept: str = "") -> Text:
    """A text where rich would read a string as markup, as for what a spinner says; see `printable`."""
    return Text(printable(text, kept))
