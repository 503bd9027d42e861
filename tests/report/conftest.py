"""One browser for all tests of a session that open a page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _browser import Browser, start


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    yield from start()
