"""What CoTBal does to its datasets before training (Section 4.1), on row numbers: nothing here reads a sample.

The papers' sizes are arguments: 2,000 samples held out for validation and for test (ShareGPT4V), 80,000 conversations
drawn (OCRVQA), 20,000 validation samples drawn (VQAv2, GQA, OCRVQA), at most 9 questions a conversation (RefCOCO).
Every draw depends on its seed and its arguments alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np


def draw(count: int, size: int, seed: str) -> np.ndarray:
    """Draw `size` of `count` rows without replacement; all of them where there are no more.

    Returns:
        [min(size, count)], ascending.
    """
    if size >= count:
        return np.arange(count)
    return np.array(sorted(random.Random(seed).sample(range(count), size)))


def hold_out(count: int, sizes: Mapping[str, int], part: str, seed: str) -> np.ndarray:
    """Divide a dataset that comes without splits.

    Args:
        count: rows in all.
        sizes: how many rows each named part takes; what is left is the part `train`.
        part: the one asked for.

    Returns:
        The part's rows, ascending; parts share none, and together they are all rows.

    Raises:
        ValueError: the parts leave nothing to train on.
    """
    if sum(sizes.values()) >= count:
        raise ValueError(f"hold_out takes {sum(sizes.values())} of {count} samples and leaves none to train on")
    order = np.array(random.Random(seed).sample(range(count), count))
    first = 0
    for name, size in sizes.items():
        if name == part:
            return np.sort(order[first : first + size])
        first += size
    return np.sort(order[first:])


def merge(keys: np.ndarray, seed: str, longest: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Merge the rows about one image into conversations, shuffled within each.

    Args:
        keys: [N], equal for rows about the same image; rows with key 0 are about none and stay alone.
        longest: the most rows of one conversation; an image with more makes several, as even as may be.

    Returns:
        (rows [N], bounds [C + 1]): conversation c is made of `rows[bounds[c]:bounds[c + 1]]`. Conversations stand in
        the order of their images' first rows.
    """
    generator = np.random.default_rng(list(seed.encode()))
    keys = np.asarray(keys).copy()
    alone = np.flatnonzero(keys == 0)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    place = first[group]  # the first row about this row's image
    place[alone] = alone
    rows = np.lexsort((generator.permutation(len(keys)), place))
    starts = np.flatnonzero(np.diff(place[rows], prepend=-1))
    bounds: list[int] = []
    for start, stop in zip(starts, [*starts[1:], len(keys)]):
        pieces = -(-(stop - start) // (longest or stop - start))
        bounds += [start + (stop - start) * piece // pieces for piece in range(pieces)]
    return rows, np.array([*bounds, len(keys)])
