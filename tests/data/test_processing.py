"""CoTBal's processing (Section 4.1): seeded draws, parts that share nothing, conversations that lose no question."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.processing import draw, hold_out, merge

SEEDS = st.text(min_size=1, max_size=8)


# ---------------------------------------------------------------------- draw


@pytest.mark.parametrize(
    ("count", "size"),
    [(207_572, 80_000), (214_354, 20_000), (132_062, 20_000)],
    ids=["OCRVQA's conversations", "VQAv2's validation", "GQA's validation"],
)
def test_the_papers_draws(count, size):
    drawn = draw(count, size, "0/task")
    assert len(drawn) == len(set(drawn.tolist())) == size
    assert (np.diff(drawn) > 0).all(), "in their order"
    assert 0 <= drawn[0] < drawn[-1] < count
    assert abs(drawn.mean() - count / 2) < 0.01 * count, "from all over"
    assert np.array_equal(draw(count, size, "0/task"), drawn)
    other = draw(count, size, "1/task")
    assert abs(len(np.intersect1d(drawn, other)) - size**2 / count) < 0.03 * size, "another seed, another draw"


@given(st.integers(0, 50), st.integers(0, 60), SEEDS)
def test_a_draw_is_of_different_rows_in_order(count, size, seed):
    drawn = draw(count, size, seed).tolist()
    assert len(drawn) == min(count, size)
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(range(count))


def test_each_row_is_drawn_as_often_as_another():
    times = np.bincount(np.concatenate([draw(10, 3, f"seed {n}") for n in range(2_000)]))
    assert ((times > 500) & (times < 700)).all()


# ---------------------------------------------------------------------- hold_out


def test_the_papers_hold_out():
    sizes = {"validation": 2_000, "test": 2_000}
    parts = {part: hold_out(100_000, sizes, part, "0/sharegpt4v") for part in ("train", *sizes)}
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 96_000, "validation": 2_000, "test": 2_000}
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(100_000))
    for part in sizes:
        assert abs(parts[part].mean() - 50_000) < 3_000, "from all over"
        assert len(np.intersect1d(parts[part], hold_out(100_000, sizes, part, "1/sharegpt4v"))) < 200


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 20), SEEDS)
def test_parts_are_disjoint_and_complete(count, validation, test, seed):
    sizes = {"validation": validation, "test": test}
    if validation + test >= count:
        with pytest.raises(
            ValueError, match=rf"^hold_out takes {validation + test} of {count} samples and leaves none"
        ):
            hold_out(count, sizes, "train", seed)
        return
    parts = [hold_out(count, sizes, part, seed).tolist() for part in ("validation", "test", "train")]
    assert [len(part) for part in parts[:2]] == [validation, test]
    assert all(part == sorted(part) for part in parts)
    assert sorted(chain(*parts)) == list(range(count))


def test_one_part_may_be_held_out_alone():
    taken = hold_out(10, {"test": 4}, "test", "seed")
    assert sorted([*taken, *hold_out(10, {"test": 4}, "train", "seed")]) == list(range(10))


# ---------------------------------------------------------------------- merge


def conversations(keys: list[int], seed: str = "seed", longest: int | None = None) -> list[list[int]]:
    rows, bounds = merge(np.array(keys, dtype=np.uint64), seed, longest)
    assert len(rows) == len(keys)
    assert bounds[0] == 0
    assert bounds[-1] == len(keys)
    return [rows[a:b].tolist() for a, b in pairwise(bounds)]


def test_rows_about_one_image_make_a_conversation_where_its_first_one_stood():
    found = conversations([7, 2**64 - 1, 0, 7, 0, 5, 2**64 - 1])
    assert [sorted(one) for one in found] == [[0, 3], [1, 6], [2], [4], [5]]


@given(st.lists(st.integers(0, 6), max_size=60), st.none() | st.integers(1, 9), SEEDS)
def test_every_row_is_in_one_conversation_about_its_image(keys, longest, seed):
    found = conversations(keys, seed, longest)
    assert sorted(chain(*found)) == list(range(len(keys)))
    assert all(found)
    by_image = defaultdict(list)
    for one in found:
        [key] = {keys[row] for row in one}
        by_image[key].append(len(one))
        assert key != 0 or len(one) == 1
    for key, sizes in by_image.items():
        if key:
            fewest = -(-keys.count(key) // longest) if longest else 1
            assert len(sizes) == fewest
            assert max(sizes) - min(sizes) <= 1, "as even as may be"
    firsts = [keys.index(keys[one[0]]) if keys[one[0]] else one[0] for one in found]
    assert firsts == sorted(firsts)


def test_the_papers_bound_of_fewer_than_ten_turns():
    sizes = [1, 9, 10, 18, 19, 40]
    keys = [key for key, size in enumerate(sizes, start=1) for _ in range(size)]
    found = conversations(keys, longest=9)
    by_image = defaultdict(list)
    for one in found:
        by_image[keys[one[0]]].append(len(one))
    assert {key: sorted(made) for key, made in by_image.items()} == {
        1: [1], 2: [9], 3: [5, 5], 4: [9, 9], 5: [6, 6, 7], 6: [8, 8, 8, 8, 8],
    }  # fmt: skip


def test_questions_are_shuffled_within_their_conversation_by_the_seed():
    keys = [1, 2] * 50
    one = conversations(keys, "0/vqav2/merge")
    assert one == conversations(keys, "0/vqav2/merge")
    for found, parity in zip(one, (0, 1)):
        assert found != sorted(found)
        assert sorted(found) == list(range(parity, 100, 2))
    other = conversations(keys, "1/vqav2/merge")
    assert other != one
    assert [sorted(found) for found in other] == [sorted(found) for found in one]


def test_each_order_is_as_likely_as_another():
    orders = defaultdict(int)
    for number in range(1_200):
        [found] = conversations([3, 3, 3], f"seed {number}")
        orders[tuple(found)] += 1
    assert len(orders) == 6
    assert all(130 < times < 270 for times in orders.values())


def test_nothing_merges_to_nothing():
    assert conversations([]) == []
