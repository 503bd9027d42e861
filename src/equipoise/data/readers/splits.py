"""Splits for data that comes without them: by a hash of what must not be in two splits, the same on every machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

SPLITS = ("train", "validation", "test")
#: How the groups of a small class are dealt, over and over: five of eight train, two test.
DEAL = ("train", "test", "train", "validation", "train", "train", "test", "train")


def split_of(group: str) -> str:
    """The split that all samples of a group belong to: 80% of groups train, 10% validation, 10% test."""
    bucket = int.from_bytes(_hash(group)[:8]) % 10
    return "train" if bucket < 8 else SPLITS[bucket - 7]


def dealt(classes: Mapping[str, str]) -> dict[str, str]:
    """The split of each group where a hash alone would leave a class out of a split: groups are few.

    Args:
        classes: each group's class.

    Returns:
        Each group's split. A class has its groups, in the order of their hashes, dealt as `DEAL` says: one of four
        groups or more is in every split. Another group in a class may change the split of the rest.
    """
    found = {}
    for one in dict.fromkeys(classes.values()):
        groups = sorted((group for group in classes if classes[group] == one), key=_hash)
        found.update({group: DEAL[place % len(DEAL)] for place, group in enumerate(groups)})
    return found


def words(text: str) -> str:
    """The text without case and punctuation, which nobody hears: texts that differ in these alone are one group."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
