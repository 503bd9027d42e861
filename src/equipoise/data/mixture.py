"""The mixture of tasks: all their samples as one sequence, and the order in which training draws from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from equipoise.data.sample import Sample
from equipoise.data.store import Samples
from equipoise.recipe import Data

MEGABATCH = 50  # batches among which samples are sorted by length, as transformers' LengthGroupedSampler does


class Mixture(Sequence[Sample]):
    """Tasks' samples, one task after the other; a sample is decoded when it is asked for.

    Args:
        parts: task name to its samples.
    """

    def __init__(self, parts: Mapping[str, Samples]):
        self.parts = dict(parts)
        self.starts = np.cumsum([0, *map(len, self.parts.values())])
        self._samples = list(self.parts.values())

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self._samples[part][int(index - self.starts[part])]

    @property
    def lengths(self) -> np.ndarray:
        """[N], characters of each conversation."""
        return np.concatenate([samples.lengths for samples in self._samples])

    @property
    def modalities(self) -> np.ndarray:
        """[N], bits `IMAGE` and `AUDIO`."""
        return np.concatenate([samples.modalities for samples in self._samples])

    def order(
        self, settings: Data, weights: Sequence[float], batch_size: int, together: int, seed: int, epoch: int
    ) -> np.ndarray:
        """The numbers of the samples of one epoch, in the order in which they are drawn.

        Args:
            settings: `order`, `batches` and `group_by_length`.
            weights: one a task, for `order: weight`.
            batch_size: samples of one micro-batch on one process.
            together: micro-batches of one optimizer step, of all processes.
            seed, epoch: the order depends on nothing else.

        Returns:
            [N]; without `order: weight` each sample once. What fills no batch of its kind comes last.
        """
        generator = np.random.default_rng([seed, epoch])
        if settings.order == "weight":
            pieces = [self._by_weight(weights, generator)]
        elif settings.order == "sequential":
            pieces = [_shuffled(a, b, generator) for a, b in zip(self.starts, self.starts[1:])]
        else:
            pieces = [_shuffled(0, len(self), generator)]
        if settings.batches == "mixed" and not settings.group_by_length:
            return np.concatenate(pieces)
        kinds = self.modalities if settings.batches != "mixed" else np.zeros(len(self), dtype=np.uint8)
        lengths = self.lengths if settings.group_by_length else None
        # Each process needs each modality at once; processes that wait for each other want the same one, as long.
        size = batch_size if settings.batches == "every-modality" else batch_size * together
        batched = _spread if settings.batches == "every-modality" else _apart
        filled, left = zip(*(batched(piece, kinds, lengths, size, generator) for piece in pieces), strict=True)
        return np.concatenate([*filled, *left])  # only at the end do short batches shift no other

    def _by_weight(self, weights: Sequence[float], generator: np.random.Generator) -> np.ndarray:
        """Draw each sample's task by weight, then the task's samples without replacement, again and again."""
        shares = np.array(weights, dtype=np.float64)
        if not np.isfinite(shares.sum()):  # of the largest floats
            shares /= shares.max()
        tasks = generator.choice(len(shares), size=len(self), p=shares / shares.sum())
        order = np.empty(len(self), dtype=np.int32)
        for task, (start, stop) in enumerate(zip(self.starts, self.starts[1:])):
            places = np.flatnonzero(tasks == task)
            rounds = -(-len(places) // (stop - start))
            if rounds:
                drawn = [_shuffled(start, stop, generator) for _ in range(rounds)]
                order[places] = np.concatenate(drawn)[: len(places)]
        return order


def _shuffled(start: int, stop: int, generator: np.random.Generator) -> np.ndarray:
    return generator.permutation(np.arange(start, stop, dtype=np.int32))  # a million in half the memory


Filled = tuple[np.ndarray, np.ndarray]  # whole batches, one after the other, and what is left over


def _apart(
    order: np.ndarray, kinds: np.ndarray, lengths: np.ndarray | None, size: int, generator: np.random.Generator
) -> Filled:
    """Batches of one kind each."""
    batches, left = [], []
    for group in _by_kind(order, kinds):
        group = _by_length(group, np.arange(len(group), dtype=np.int32) // size, lengths)
        whole = len(group) // size * size
        batches.append(group[:whole].reshape(-1, size))
        left.append(group[whole:])
    filled = np.concatenate(batches)
    return filled[generator.permutation(len(filled))].reshape(-1), np.concatenate(left)


def _spread(
    order: np.ndarray, kinds: np.ndarray, lengths: np.ndarray | None, size: int, generator: np.random.Generator
) -> Filled:
    """Batches over which each kind is spread evenly.

    A kind with at least as many samples as there are batches is in every one. Kinds are dealt to the batches in turn,
    and each batch takes its share of a kind from neighbours, which keeps samples of one length together. What is left
    over is of kinds that can spare it.
    """
    count = len(order) // size
    spare = np.zeros(len(order), dtype=bool)
    for kind in np.unique(kinds[order]):
        spare[np.flatnonzero(kinds[order] == kind)[count:]] = True
    order = np.concatenate([order[~spare], order[spare]])
    dealt, left = order[: count * size], order[count * size :]
    if not count:
        return dealt, left
    groups, shares, first = [], [], 0
    for group in _by_kind(dealt, kinds):
        share = np.sort(np.arange(first, first + len(group), dtype=np.int32) % count)  # the batch of each
        groups.append(_by_length(group, share, lengths))
        shares.append(share)
        first += len(group)
    rows = np.concatenate(groups)[np.argsort(np.concatenate(shares), kind="stable")].reshape(count, size)
    return rows[generator.permutation(count)].reshape(-1), left


def _by_kind(order: np.ndarray, kinds: np.ndarray) -> list[np.ndarray]:
    """The samples of each kind, in their order."""
    return [order[kinds[order] == kind] for kind in np.unique(kinds[order])]


def _by_length(group: np.ndarray, batches: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """The samples of the same fifty batches by length, where it is given; `batches` has the batch of each place."""
    return group if lengths is None else group[np.lexsort((lengths[group], batches // MEGABATCH))]


class MixtureSampler(Sampler[int]):
    """`Mixture.order` as a DataLoader draws it, epoch after epoch.

    Args:
        mixture, settings, weights, batch_size, together, seed: as there.
    """

    def __init__(
        self, mixture: Mixture, settings: Data, weights: Sequence[float], batch_size: int, together: int, seed: int
    ):
        self.mixture = mixture
        self.arguments = (settings, tuple(weights), batch_size, together, seed)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.mixture)

    def __iter__(self) -> Iterator[int]:
        return map(int, self.mixture.order(*self.arguments, self.epoch))
