"""Peak memory: what is forgotten and what is seen, and a contestant in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from equipoise.bench.contestants import REFERENCE, Contestant
from equipoise.bench.memory import FORGET, peak_of
from equipoise.errors import RunError
from equipoise.recipe import Recipe

MEASURE = """
from equipoise.bench.memory import _forget_the_peak, _peak
mega = 2**20
kept = bytearray(b"x" * (300 * mega)); del kept
base = _forget_the_peak()
held = bytearray(b"x") * (80 * mega); del held
print((_peak() - base) / mega)
"""


@pytest.mark.skipif(not FORGET.exists(), reason="this system cannot forget a peak")
def test_an_earlier_peak_is_forgotten_and_a_later_one_seen() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(80, abs=8)


def test_a_contestant_in_a_process_of_its_own(make_recipe: Callable[..., Recipe]) -> None:
    found = peak_of(make_recipe(), REFERENCE, steps=1)
    assert 2**26 < found.base < found.peak < 2**32


def test_a_process_that_fails_says_why(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(RunError, match="bench memory, nobody: its process ended with status 1"):
        peak_of(make_recipe(), Contestant("nobody"), steps=1)
