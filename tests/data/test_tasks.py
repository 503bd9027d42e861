"""Parts of tasks: left out, cut by a seeded draw that keeps the order, refused when empty; the mixture of all tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from equipoise.data.sample import Sample
from equipoise.data.tasks import SampleDataset, read_mixture, read_task
from equipoise.errors import DataError
from equipoise.recipe import Recipe, Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps({"prompt": f"q{n}", "answer": "a"}) + "\n" for n in range(50))
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(lines)
    return tmp_path


def numbers(samples: list[Sample]) -> list[int]:
    return [int(sample.prompt[1:]) for sample in samples]


def task(folder: Path, **settings: object) -> Task:
    return Task.model_validate({"name": "own", "reader": "jsonl", "path": folder, **settings})


def test_without_a_limit_all_samples_come_in_order(folder):
    assert numbers(read_task(task(folder), "train", seed=0)) == list(range(50))
    assert numbers(read_task(task(folder, max_train=50), "train", seed=0)) == list(range(50))
    assert numbers(read_task(task(folder, max_train=99), "train", seed=0)) == list(range(50))


def test_a_limit_draws_so_many_different_ones_in_order(folder):
    drawn = numbers(read_task(task(folder, max_train=20), "train", seed=0))
    assert len(drawn) == 20
    assert drawn == sorted(set(drawn))
    assert drawn != list(range(20))


def test_the_draw_repeats_with_the_seed_and_differs_by_seed_task_and_part(folder):
    def draw(seed: int = 0, part: str = "train", **settings: object) -> list[int]:
        return numbers(read_task(task(folder, max_train=20, max_test=20, **settings), part, seed))

    assert draw() == draw()
    assert len({tuple(d) for d in (draw(), draw(seed=1), draw(part="test"), draw(name="other"))}) == 4


def test_each_part_has_its_own_limit(folder):
    limited = task(folder, max_test=3)
    assert len(read_task(limited, "train", 0)) == 50
    assert len(read_task(limited, "test", 0)) == 3


def test_a_part_that_the_recipe_leaves_out_is_empty_and_not_read(tmp_path):
    assert read_task(task(tmp_path / "none", train=None), "train", 0) == []


def test_a_split_without_samples_is_refused(folder):
    (folder / "train.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"^tasks\.own: split 'train' has no samples$"):
        read_task(task(folder), "train", 0)


def test_options_reach_the_reader_and_unknown_ones_are_named():
    captions = Task.model_validate({"name": "c", "reader": "easy_vqa", "options": {"caption": True}, "max_train": 2})
    assert {sample.prompt for sample in read_task(captions, "train", 0)} == {"Describe the image."}
    for option in ("captoin", "path", "task", "split"):
        wrong = Task.model_validate({"name": "c", "reader": "easy_vqa", "options": {option: True}})
        with pytest.raises(
            DataError, match=rf"^tasks\.c\.options\.{option}: .* no such option; allowed: caption, yes_no$"
        ):
            read_task(wrong, "train", 0)


def test_the_mixture_is_one_task_after_the_other_drawn_by_the_recipes_seed(folder):
    two = [{"name": n, "reader": "jsonl", "path": folder, "max_train": k} for n, k in (("one", 5), ("two", 7))]
    recipe = Recipe.model_validate({"model": {"path": "a/b"}, "tasks": two, "train": {"seed": 3}})
    samples = read_mixture(recipe, "train")
    assert [sample.task for sample in samples] == ["one"] * 5 + ["two"] * 7
    assert samples[:5] == read_task(recipe.tasks[0], "train", seed=3)


def test_the_dataset_gives_samples_by_number(folder):
    samples = read_task(task(folder), "train", 0)
    dataset = SampleDataset(samples)
    assert (len(dataset), dataset[7]) == (50, samples[7])
