"""Splits by hash: their shares, and that they never move."""

from __future__ import annotations

from collections import Counter

import pytest

from equipoise.data.readers.splits import dealt, split_of, words


def test_a_tenth_of_the_groups_is_for_validation_and_a_tenth_for_testing():
    shares = Counter(split_of(str(number)) for number in range(20_000))
    assert shares["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert shares["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert shares["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_a_group_stays_in_its_split_from_release_to_release():
    assert [split_of(name) for name in ("animals/cow", "animals/birds/cuckoo", "thank you")] == [
        "train",
        "test",
        "test",
    ]


def test_words_are_what_is_heard():
    assert words("  It’s the CAFÉ, at 5-7. ") == "it s the café at 5 7"
    assert words("Straße") == words("STRASSE")


def test_groups_of_a_class_are_dealt_to_all_splits_in_an_order_that_is_not_their_names():
    classes = {f"{name}{number}": name for name in "ab" for number in range(8)}
    found = dealt(classes)
    for name in "ab":
        splits = [found[f"{name}{number}"] for number in range(8)]
        assert Counter(splits) == {"train": 5, "validation": 1, "test": 2}
    assert [found[f"a{n}"] for n in range(8)] != [found[f"b{n}"] for n in range(8)]
    assert found == dealt(dict(reversed(classes.items())))
    assert Counter(dealt(dict.fromkeys("wxyz", "a")).values()) == {"train": 2, "validation": 1, "test": 1}
