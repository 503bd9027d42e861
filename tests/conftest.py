"""What all tests share: no network, one thread, seeded generators, and property tests that repeat."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start: two workers with two threads each crawl

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("equipoise", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("equipoise")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
