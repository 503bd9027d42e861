"""The mixture: all tasks as one sequence, and orders that keep what they promise for any tasks, sizes and kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader
from transformers.trainer_pt_utils import LengthGroupedSampler

from equipoise.data.mixture import Mixture, MixtureSampler
from equipoise.data.store import AUDIO, IMAGE
from equipoise.recipe import Data

TEXT, BOTH = 0, IMAGE | AUDIO
KINDS = (TEXT, IMAGE, AUDIO, BOTH)


class Fake:
    """A task's samples, of which the mixture knows only columns; a sample is its task and number."""

    def __init__(self, name: str, kinds: Sequence[int], lengths: Sequence[int] | None = None):
        self.name = name
        self.modalities = np.array(kinds, dtype=np.uint8)
        self.lengths = np.array(lengths if lengths is not None else [10] * len(kinds), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.modalities)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.name, index


def mixture(*tasks: Sequence[int]) -> Mixture:
    """A mixture of tasks given as the kinds of their samples."""
    return Mixture({f"t{number}": Fake(f"t{number}", kinds) for number, kinds in enumerate(tasks)})


def order(
    mixed: Mixture, size: int = 4, weights: Sequence[float] | None = None, together: int = 1, seed: int = 0,
    epoch: int = 0, **settings: Any,
) -> list[int]:  # fmt: skip
    weights = weights or [1.0] * len(mixed.parts)
    found = mixed.order(Data(**settings), weights, size, together, seed, epoch)
    assert len(found) == len(mixed)
    return found.tolist()


def batches(numbers: Sequence[int], size: int) -> list[list[int]]:
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def kinds_of(mixed: Mixture, batch: Sequence[int]) -> set[int]:
    return {int(mixed.modalities[number]) for number in batch}


TASKS = st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=40), min_size=1, max_size=4)
SIZES = st.integers(1, 7)
SETTINGS = st.fixed_dictionaries(
    {
        "order": st.sampled_from(["size", "weight", "sequential"]),
        "batches": st.sampled_from(["mixed", "every-modality", "one-modality"]),
        "group_by_length": st.booleans(),
    }
)


# ---------------------------------------------------------------------- one sequence


def test_a_mixture_is_one_task_after_the_other():
    mixed = mixture([TEXT] * 3, [IMAGE], [TEXT] * 2)
    whole = [("t0", 0), ("t0", 1), ("t0", 2), ("t1", 0), ("t2", 0), ("t2", 1)]
    assert (len(mixed), mixed[:], list(mixed)) == (6, whole, whole)
    assert (mixed[-1], mixed[np.int64(3)], mixed[4:1:-2]) == (whole[5], whole[3], [whole[4], whole[2]])
    assert mixed.modalities.tolist() == [0, 0, 0, IMAGE, 0, 0]
    for outside in (6, -7):
        with pytest.raises(IndexError):
            mixed[outside]


# ---------------------------------------------------------------------- what every order is


@given(TASKS, SIZES, st.integers(1, 3), SETTINGS.filter(lambda settings: settings["order"] != "weight"), SIZES)
def test_every_order_has_each_sample_once(tasks, size, together, settings, seed):
    found = order(mixture(*tasks), size, together=together, seed=seed, **settings)
    assert sorted(found) == list(range(sum(map(len, tasks))))


@given(TASKS, SETTINGS, st.integers(0, 5), st.integers(0, 5))
def test_an_order_depends_on_seed_and_epoch_alone(tasks, settings, seed, epoch):
    one = order(mixture(*tasks), seed=seed, epoch=epoch, **settings)
    np.random.default_rng().random()
    assert order(mixture(*tasks), seed=seed, epoch=epoch, **settings) == one


@pytest.mark.parametrize("settings", [{}, {"order": "weight"}, {"order": "sequential"}, {"batches": "every-modality"},
                                      {"batches": "one-modality"}, {"group_by_length": True}], ids=str)  # fmt: skip
def test_another_seed_or_epoch_is_another_order(settings):
    mixed = mixture([TEXT, IMAGE] * 20, [IMAGE, AUDIO] * 20)
    orders = {tuple(order(mixed, seed=s, epoch=e, **settings)) for s, e in ((0, 0), (1, 0), (0, 1), (1, 1))}
    assert len(orders) == 4


# ---------------------------------------------------------------------- order


def test_by_size_all_tasks_are_shuffled_together():
    found = order(mixture([TEXT] * 300, [TEXT] * 100))
    firsts = sum(number < 300 for number in found[:200])
    assert 130 < firsts < 170
    assert found != sorted(found)


def test_one_task_after_the_other_each_shuffled():
    found = order(mixture([TEXT] * 30, [TEXT] * 20), order="sequential")
    for part, numbers in ((found[:30], range(30)), (found[30:], range(30, 50))):
        assert sorted(part) == list(numbers)
        assert part != list(numbers)


@given(TASKS, SIZES, st.sampled_from(["every-modality", "one-modality"]), st.booleans())
def test_one_task_after_the_other_in_whole_batches(tasks, size, kind, grouped):
    mixed = mixture(*tasks)
    found = order(mixed, size, order="sequential", batches=kind, group_by_length=grouped)
    task_of = [number for number, kinds in enumerate(tasks) for _ in kinds]
    whole = [Counter(kinds) for kinds in tasks]
    if kind == "one-modality":
        counts = [sum(count // size for count in kinds.values()) for kinds in whole]
    else:
        counts = [len(kinds) // size for kinds in tasks]
    made = batches(found, size)[: sum(counts)]
    expected = [{number} for number, count in enumerate(counts) for _ in range(count)]
    assert [{task_of[sample] for sample in batch} for batch in made] == expected


def test_by_weight_each_task_has_its_share():
    mixed = mixture([TEXT] * 3_000, [TEXT] * 1_000, [TEXT] * 10)
    found = np.array(order(mixed, order="weight", weights=[1, 2, 1]))
    shares = [np.mean((found >= a) & (found < b)) for a, b in pairwise(mixed.starts)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.data())
def test_by_weight_a_task_is_used_up_before_it_begins_anew(sizes, data):
    weights = data.draw(st.lists(st.floats(0.01, 9), min_size=len(sizes), max_size=len(sizes)))
    mixed = mixture(*([TEXT] * size for size in sizes))
    found = order(mixed, order="weight", weights=weights)
    for size, start in zip(sizes, mixed.starts):
        drawn = [number - start for number in found if start <= number < start + size]
        for lap in batches(drawn, size):
            assert len(set(lap)) == len(lap)


def test_by_weight_weights_may_be_the_largest_floats():
    mixed = mixture([TEXT] * 30, [TEXT] * 30)
    assert order(mixed, order="weight", weights=[1.7e308, 1.7e308]) == order(mixed, order="weight", weights=[1, 1])


def test_by_weight_a_task_that_is_hardly_drawn_may_be_missing():
    found = order(mixture([TEXT] * 5, [TEXT] * 5), order="weight", weights=[1e9, 1e-9])
    assert set(found) == set(range(5))
    assert sorted(found) == sorted([*range(5)] * 2)


# ---------------------------------------------------------------------- batches


@given(TASKS, SIZES, st.booleans(), st.integers(0, 3))
def test_every_full_batch_has_every_kind_that_there_is_enough_of(tasks, size, grouped, seed):
    mixed = mixture(*tasks)
    found = order(mixed, size, batches="every-modality", group_by_length=grouped, seed=seed)
    count = len(found) // size
    totals = Counter(mixed.modalities.tolist())
    plenty = {kind for kind, total in totals.items() if total >= count}
    if len(totals) <= size:
        for batch in batches(found, size)[:count]:
            assert plenty <= kinds_of(mixed, batch)


@given(TASKS, SIZES, st.integers(0, 3))
def test_kinds_are_spread_evenly(tasks, size, seed):
    mixed = mixture(*tasks)
    found = order(mixed, size, batches="every-modality", seed=seed)
    whole = batches(found, size)[: len(found) // size]
    for kind in KINDS:
        shares = [sum(mixed.modalities[number] == kind for number in batch) for batch in whole]
        assert not shares or max(shares) - min(shares) <= 1


@given(TASKS, SIZES, st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_full_batches_hold_one_kind_and_what_is_left_comes_last(tasks, size, together, grouped, seed):
    mixed = mixture(*tasks)
    found = order(mixed, size, together=together, batches="one-modality", group_by_length=grouped, seed=seed)
    step = size * together  # all micro-batches of an optimizer step, on all processes
    full = sum(total // step for total in Counter(mixed.modalities.tolist()).values())
    for batch in batches(found, step)[:full]:
        assert len(kinds_of(mixed, batch)) == 1
    rest = Counter(mixed.modalities[found[full * step :]].tolist())
    assert all(total < step for total in rest.values())


def test_batches_of_one_kind_come_in_no_order_of_kinds():
    mixed = mixture([TEXT] * 100, [IMAGE] * 100, [AUDIO] * 100)
    kinds = [kinds_of(mixed, batch).pop() for batch in batches(order(mixed, 5, batches="one-modality"), 5)]
    assert sum(a != b for a, b in pairwise(kinds)) > 20


# ---------------------------------------------------------------------- length


def padding(lengths: np.ndarray, found: Sequence[int], size: int) -> float:
    """The share of a batch's places that no sample fills, over all batches."""
    made = [lengths[batch] for batch in batches(found, size)]
    return 1 - sum(batch.sum() for batch in made) / sum(batch.max() * len(batch) for batch in made)


def long_and_short(kinds: Sequence[int], count: int = 2_000) -> Mixture:
    lengths = np.random.default_rng(3).lognormal(4, 1, count).astype(int) + 1
    return Mixture({"own": Fake("own", [kinds[number % len(kinds)] for number in range(count)], lengths.tolist())})


def transformers_padding(lengths: np.ndarray, size: int) -> float:
    """What transformers' own sampler of this kind reaches."""
    generator = torch.Generator().manual_seed(0)
    return padding(lengths, list(LengthGroupedSampler(size, lengths=lengths.tolist(), generator=generator)), size)


@pytest.mark.parametrize(("kind", "more"), [("mixed", 0.02), ("one-modality", 0.02), ("every-modality", 0.1)])
def test_samples_of_a_length_share_a_batch(kind, more):
    mixed = long_and_short([TEXT, IMAGE, IMAGE, AUDIO])
    grouped = order(mixed, 8, batches=kind, group_by_length=True)
    shuffled = order(mixed, 8, batches=kind)
    assert padding(mixed.lengths, shuffled, 8) > 0.6
    assert padding(mixed.lengths, grouped, 8) < transformers_padding(mixed.lengths, 8) + more < 0.3


def test_micro_batches_of_one_step_are_as_long():
    mixed = long_and_short([TEXT])
    found = order(mixed, 4, together=3, group_by_length=True)
    assert padding(mixed.lengths, found, 12) < transformers_padding(mixed.lengths, 12) + 0.02


def test_long_and_short_batches_alternate_and_are_not_always_the_same():
    mixed = long_and_short([TEXT])
    found = [order(mixed, 8, group_by_length=True, epoch=epoch) for epoch in (0, 1)]
    means = [[mixed.lengths[batch].mean() for batch in batches(one, 8)] for one in found]
    for one in means:
        assert abs(np.corrcoef(one, range(len(one)))[0, 1]) < 0.2, "no drift from short to long"
    partners = [{frozenset(batch) for batch in batches(one, 8)} for one in found]
    assert len(partners[0] & partners[1]) < 5


# ---------------------------------------------------------------------- as a DataLoader draws


def test_the_sampler_draws_the_mixtures_order_of_the_epoch():
    mixed = mixture([TEXT, IMAGE] * 10, [AUDIO] * 10)
    settings = Data(batches="every-modality", order="weight")
    sampler = MixtureSampler(mixed, settings, [1.0, 2.0], batch_size=4, together=2, seed=5)
    assert len(sampler) == 30
    for epoch in (0, 3):
        sampler.set_epoch(epoch)
        expected = mixed.order(settings, [1.0, 2.0], 4, 2, 5, epoch).tolist()
        drawn = list(sampler)
        assert drawn == expected
        assert {type(number) for number in drawn} == {int}
    assert [one for batch in DataLoader(mixed, batch_size=4, sampler=sampler, collate_fn=list) for one in batch] == (
        [mixed[number] for number in expected]
    )


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_process_has_every_modality_in_every_step(processes, grouped):
    mixed = mixture([IMAGE] * 90, [AUDIO] * 40, [TEXT] * 50)
    settings = Data(batches="every-modality", group_by_length=grouped)
    sampler = MixtureSampler(mixed, settings, [1.0] * 3, batch_size=6, together=processes, seed=1)
    whole = BatchSampler(sampler, batch_size=6, drop_last=False)
    shards = [list(BatchSamplerShard(whole, processes, rank)) for rank in range(processes)]
    assert len({len(shard) for shard in shards}) == 1
    for step in zip(*shards, strict=True):
        for batch in step:
            assert kinds_of(mixed, batch) == {TEXT, IMAGE, AUDIO}


@pytest.mark.parametrize("processes", [2, 3])
def test_every_process_has_the_same_modality_where_a_batch_holds_one(processes):
    mixed = mixture([IMAGE] * 97, [AUDIO] * 41, [TEXT] * 53)
    settings = Data(batches="one-modality", group_by_length=True)
    sampler = MixtureSampler(mixed, settings, [1.0] * 3, batch_size=4, together=processes, seed=1)
    whole = BatchSampler(sampler, batch_size=4, drop_last=False)
    shards = [list(BatchSamplerShard(whole, processes, rank)) for rank in range(processes)]
    full = sum(total // (4 * processes) for total in (97, 41, 53))
    for step in list(zip(*shards, strict=True))[:full]:
        assert len(kinds_of(mixed, [number for batch in step for number in batch])) == 1
