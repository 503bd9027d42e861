"""Numbers as files hold them."""

from __future__ import annotations

LARGEST = 1e100


def number(value: object) -> float | None:
    """A finite number as a float; None for anything else that a file may hold.

    Numbers from 1e100 on, which no run logs, count as not finite: sums of them would not be.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON's whole numbers have no largest
        return None
    return found if abs(found) < LARGEST else None
