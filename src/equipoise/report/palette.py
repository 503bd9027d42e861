"""Colours of runs and modules, for light and for dark pages.

Okabe and Ito's palette, which stays apart for the colour-blind, without its yellow, which vanishes on one of the two
backgrounds; its black is a dark grey on a light page and a light one on a dark page. The dark page has the same hues,
lifted to a contrast of at least 4.5:1 with its background. Seven colours: as many as there are schedules to compare.
"""

from __future__ import annotations

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b4568c", "#b07800", "#3f95c9", "#454c54")
DARK = ("#4ba3dd", "#f28a3c", "#2fc49a", "#dd93bf", "#e0aa2e", "#8ccbf2", "#c9cfd6")
HARM_LIGHT, HELP_LIGHT = "#f0a060", "#5fa8d3"
HARM_DARK, HELP_DARK = "#8a4a14", "#1f5f8f"
"""The ends of the scale from negative to positive. Numbers stand on it in the page's ink, so it is no darker (on a
dark page, no lighter) than that can be read on."""

DASHES = ("solid", "dash", "dot", "dashdot")


def colour(index: int) -> str:
    """The light page's colour of the run or module with this number; colours repeat, `dash` then tells them apart."""
    return LIGHT[index % len(LIGHT)]


def dash(index: int) -> str:
    """The line style that goes with `colour`."""
    return DASHES[index // len(LIGHT) % len(DASHES)]
