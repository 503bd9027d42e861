"""`fraction` of a task: how many samples of the training part are left, which, and of what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.tasks import read_task
from equipoise.recipe import Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps({"prompt": f"q{n}", "answer": "a"}) + "\n" for n in range(64))
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(lines)
    return tmp_path


def numbers(folder: Path, part: Any = "train", seed: int = 0, **settings: object) -> list[int]:
    task = Task.model_validate({"name": "own", "reader": "jsonl", "path": folder, **settings})
    samples = read_task(task, part, seed)
    assert samples is not None
    return [int(sample.prompt[1:]) for sample in samples]


@pytest.mark.parametrize(("fraction", "size"), [(1 / 32, 2), (0.5, 32), (0.99, 63), (1.0, 64), (1e-9, 1), (0.02, 1)])
def test_the_share_that_is_left_is_at_least_one_sample(folder, fraction, size):
    left = numbers(folder, fraction=fraction)
    assert len(left) == size
    assert left == sorted(set(left))


def test_a_smaller_share_is_part_of_a_larger_one_and_none_is_the_first_rows(folder):
    small, large = numbers(folder, fraction=0.125), numbers(folder, fraction=0.5)
    assert set(small) < set(large)
    assert large != list(range(32))


def test_it_is_a_share_of_what_max_train_leaves(folder):
    left = numbers(folder, max_train=32)
    assert set(numbers(folder, max_train=32, fraction=0.25)) < set(left)
    assert len(numbers(folder, max_train=32, fraction=0.25)) == 8


def test_the_other_parts_are_whole(folder):
    for part in ("validation", "test"):
        assert numbers(folder, part, fraction=0.1) == list(range(64))


def test_the_draw_repeats_with_the_seed_and_differs_by_seed_and_task(folder):
    assert numbers(folder, fraction=0.5) == numbers(folder, fraction=0.5)
    drawn = [
        numbers(folder, fraction=0.5),
        numbers(folder, seed=1, fraction=0.5),
        numbers(folder, name="b", fraction=0.5),
    ]
    assert len({tuple(each) for each in drawn}) == 3


def test_merged_conversations_count_as_one(tmp_path):
    rows = [{"image": f"{n // 2}.png", "prompt": f"q{n}", "answer": "a"} for n in range(16)]
    for n in range(8):
        (tmp_path / f"{n}.png").write_bytes(b"")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task.model_validate({"name": "own", "reader": "jsonl", "path": tmp_path, "merge": True, "fraction": 0.25})
    samples = read_task(task, "train", 0)
    assert [len(sample.turns) for sample in samples] == [4, 4]
