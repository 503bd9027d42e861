r"""What one task's data does for another, told from gradients.

A small step on task i changes task j's loss by $-g_i \cdot h_j$, with $g_i$ the gradient of task i's loss on training
samples and $h_j$ that of task j's on validation answers. Relative to what as small a step on j's own data does:

$$ C_{ij} = \frac{g_i \cdot h_j}{g_j \cdot h_j} $$

TAG (Fifty et al., arXiv 2109.04617) takes such affinities from steps along a run; here they are taken at one point.

Few samples tell it roughly. Each side is divided into halves a and b, and how far $C^{aa}$ and $C^{bb}$ are from each
other says how much of C is noise: over all pairs of tasks, a quarter of their mean squared difference is no less than
the noise's variance $\sigma^2$ in C, which the four products average. What is left of C's mean square is what the tasks
really have, $\tau^2$, and every C between two tasks is shrunk by $\tau^2 / (\tau^2 + \sigma^2)$.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: By giving task, by receiving one, the products of the giver's halves (rows) with the receiver's (columns).
Products = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]


def alignments(products: Products) -> dict[str, dict[str, float]]:
    """C by giving task, by receiving one, shrunk; 1 on the diagonal.

    From -1 to 1; 0 where the receiver's own two gradients do not agree.
    """
    own = {task: _mean(row[task]) for task, row in products.items()}
    pairs = {
        (giver, taker): (_mean(of) / own[taker], (of[0][0] - of[1][1]) / own[taker])
        for giver, row in products.items()
        for taker, of in row.items()
        if giver != taker and own[taker] > 0
    }
    kept = share_kept(list(pairs.values()))
    return {
        giver: {
            taker: 1.0 if giver == taker else min(1.0, max(-1.0, kept * pairs.get((giver, taker), (0.0, 0.0))[0]))
            for taker in row
        }
        for giver, row in products.items()
    }


def share_kept(pairs: Sequence[tuple[float, float]]) -> float:
    """By what all C are multiplied, from 0 to 1.

    Args:
        pairs: of each, C and the difference of its halves.
    """
    whole = sum(value**2 for value, _ in pairs)
    noise = sum(difference**2 for _, difference in pairs) / 4
    return max(0.0, whole - noise) / whole if whole > 0 else 0.0


def _mean(products: Sequence[Sequence[float]]) -> float:
    return sum(map(sum, products)) / sum(map(len, products))
