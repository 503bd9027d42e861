"""Splits for data that comes without them: by a hash of what must not be in two splits, the same on every machine."""

from __future__ import annotations

import hashlib
import re

SPLITS = ("train", "validation", "test")


def split_of(group: str) -> str:
    """The split that all samples of a group belong to: 80% of groups train, 10% validation, 10% test."""
    bucket = int.from_bytes(hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[:8]) % 10
    return "train" if bucket < 8 else SPLITS[bucket - 7]


def words(text: str) -> str:
    """The text without case and punctuation, which nobody hears: texts that differ in these alone are one group."""
    return " ".join(re.findall(r"\w+", text.casefold()))
