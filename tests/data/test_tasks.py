"""Parts of tasks: left out, held out, merged, cut by a seeded draw, refused when empty; samples that cannot be read;
the mixture of all tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from _flawed import GOOD, LINES, assert_line, write_media, write_task
from PIL import Image
from transformers import ProcessorMixin

from equipoise.data import tasks
from equipoise.data.collate import IGNORED, Collator
from equipoise.data.media import load_audios, load_images
from equipoise.data.readers.reader import Flaw, Reader
from equipoise.data.sample import Sample, exchange
from equipoise.data.store import Samples
from equipoise.data.tasks import is_unanswered, left_out, read_mixture, read_task
from equipoise.errors import DataError
from equipoise.recipe import Recipe, Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps({"prompt": f"q{n}", "answer": "a"}) + "\n" for n in range(50))
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(lines)
    return tmp_path


def numbers(samples: Samples) -> list[int]:
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
    assert read_task(task(tmp_path / "none", train=None), "train", 0) is None


def test_a_split_without_samples_is_refused(folder):
    (folder / "train.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"^tasks\.own: split 'train' has no samples$"):
        read_task(task(folder), "train", 0)


def test_options_reach_the_reader_and_unknown_ones_are_named():
    captions = Task.model_validate({"name": "c", "reader": "easy_vqa", "options": {"kind": "caption"}, "max_train": 2})
    assert {sample.prompt for sample in read_task(captions, "train", 0)} == {"Describe the image."}
    for option in ("captoin", "path", "task", "split"):
        wrong = Task.model_validate({"name": "c", "reader": "easy_vqa", "options": {option: True}})
        with pytest.raises(
            DataError, match=rf"^tasks\.c\.options\.{option}: .* no such option; allowed: kind, yes_no$"
        ):
            read_task(wrong, "train", 0)


def test_the_mixture_is_one_task_after_the_other_drawn_by_the_recipes_seed(folder):
    two = [{"name": n, "reader": "jsonl", "path": folder, "max_train": k} for n, k in (("one", 5), ("two", 7))]
    recipe = Recipe.model_validate({"model": {"path": "a/b"}, "tasks": two, "train": {"seed": 3}})
    samples = read_mixture(recipe, "train")
    assert [sample.task for sample in samples] == ["one"] * 5 + ["two"] * 7
    assert samples[:5] == read_task(recipe.tasks[0], "train", seed=3)[:]


def test_a_recipe_that_trains_on_nothing_is_refused(folder):
    recipe = Recipe.model_validate({"model": {"path": "a/b"}, "tasks": [task(folder, train=None).model_dump()]})
    for part in ("train", "validation"):
        with pytest.raises(DataError, match=r"^no task has a training part: train is null in all of them$"):
            read_mixture(recipe, part)


# ---------------------------------------------------------------------- held out


def test_data_without_splits_is_divided(folder):
    divided = task(folder, hold_out={"validation": 8, "test": 5}, validation="not there", test="nor this")
    parts = {part: numbers(read_task(divided, part, 0)) for part in ("train", "validation", "test")}
    assert {part: len(found) for part, found in parts.items()} == {"train": 37, "validation": 8, "test": 5}
    assert sorted(chain(*parts.values())) == list(range(50))
    assert all(found == sorted(found) for found in parts.values())
    assert numbers(read_task(divided, "test", 0)) == parts["test"]
    others = [read_task(divided, "test", 1), read_task(divided.model_copy(update={"name": "other"}), "test", 0)]
    assert all(numbers(other) != parts["test"] for other in others)


def test_a_part_that_is_not_held_out_is_left_out(folder):
    divided = task(folder, hold_out={"validation": 8})
    assert read_task(divided, "test", 0) is None
    assert len(read_task(divided, "train", 0)) == 42
    none = task(folder, hold_out={"validation": 8, "test": 8}, test=None)
    assert read_task(none, "test", 0) is None


def test_what_is_held_out_is_cut_by_its_own_limit(folder):
    divided = task(folder, hold_out={"validation": 8}, max_validation=3, max_train=10)
    validation, train = (numbers(read_task(divided, part, 0)) for part in ("validation", "train"))
    assert (len(validation), len(train)) == (3, 10)
    assert not set(validation) & set(train)


def test_holding_out_everything_is_refused(folder):
    with pytest.raises(
        DataError, match=r"^tasks\.own\.hold_out: hold_out takes 50 of 50 samples and leaves none to train on$"
    ):
        read_task(task(folder, hold_out={"validation": 25, "test": 25}), "train", 0)


# ---------------------------------------------------------------------- merged


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Questions 0 to 23 about 0.png (every second one), 1.png and 2.png, and question 24 about none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in range(3):
        Image.new("RGB", (8, 8), (80 * name, 0, 0)).save(folder / f"{name}.png")
    images = [0 if number % 2 == 0 else 1 + number // 2 % 2 for number in range(24)]
    rows = [{"prompt": f"q{n}", "answer": f"a{n}", "image": f"{image}.png"} for n, image in enumerate(images)]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "q24", "answer": "a24"}])
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


def questions(sample: Sample) -> list[int]:
    """The numbers of its questions, each of which its own answer must follow."""
    texts = [turn.text for turn in sample.turns]
    assert [f"a{question[1:]}" for question in texts[::2]] == texts[1::2]
    return [int(question[1:]) for question in texts[::2]]


def test_questions_about_one_image_are_one_conversation_in_training(pictures):
    merged = task(pictures, merge=True)
    found = [questions(sample) for sample in read_task(merged, "train", 0)]
    assert [sorted(one) for one in found] == [
        list(range(0, 24, 2)), list(range(1, 24, 4)), list(range(3, 24, 4)), [24],
    ]  # fmt: skip
    assert found[0] != sorted(found[0]), "shuffled"
    assert [questions(sample) for sample in read_task(merged, "train", 0)] == found
    assert [questions(sample) for sample in read_task(merged, "train", 1)] != found
    assert len(read_task(merged, "validation", 0)) == 25, "but each is asked alone when the answers are scored"


def test_a_long_conversation_becomes_several(pictures):
    found = [questions(sample) for sample in read_task(task(pictures, merge=True, max_turns=5), "train", 0)]
    assert [len(one) for one in found] == [4, 4, 4, 3, 3, 3, 3, 1]
    assert sorted(chain(*found)) == list(range(25))


def test_a_limit_counts_merged_conversations(pictures):
    whole = read_task(task(pictures, merge=True, max_turns=5), "train", 0)[:]
    cut = read_task(task(pictures, merge=True, max_turns=5, max_train=3), "train", 0)
    assert len(cut) == 3
    assert [whole.index(sample) for sample in cut] == sorted(whole.index(sample) for sample in cut)


def test_what_is_held_out_is_in_no_merged_conversation(pictures):
    divided = task(pictures, merge=True, hold_out={"validation": 10})
    train, validation = ([questions(s) for s in read_task(divided, part, 0)] for part in ("train", "validation"))
    assert sorted(chain(*train, *validation)) == list(range(25))
    assert [len(one) for one in validation] == [1] * 10
    assert len(train) <= 4


def test_every_answer_of_a_merged_conversation_is_supervised(pictures, processor: ProcessorMixin):
    samples = read_task(task(pictures, merge=True, max_turns=9, response_format="Be brief."), "train", 0)
    batch = Collator(processor)(samples[:])
    for sample, labels in zip(samples, batch["labels"], strict=True):
        answers = [turn.text for turn in sample.turns if turn.role == "assistant"]
        assert processor.tokenizer.decode(labels[labels != IGNORED]) == "".join(f"{one}<|im_end|>" for one in answers)
    assert sum(sample.turns.count(turn) for sample in samples for turn in set(sample.turns)) == 50


# ---------------------------------------------------------------------- response formats


def fake(monkeypatch: pytest.MonkeyPatch, *rows: Sample | Flaw, **reader: Any) -> None:
    """Let the jsonl reader be one that yields these rows."""

    def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
        yield from rows

    monkeypatch.setattr(tasks, "find_reader", lambda name: Reader(read, **reader))


@pytest.mark.parametrize(
    ("own", "recipe", "prompt"),
    [(None, None, "q"), ("F", None, "q\nF"), ("F", "G", "q\nG"), ("F", "", "q"), (None, "G", "q\nG")],
)
def test_the_recipes_response_format_goes_before_the_readers(tmp_path, monkeypatch, own, recipe, prompt):
    fake(monkeypatch, Sample("1", "own", exchange("q", "a")), response_format=own)
    [sample] = read_task(task(tmp_path, response_format=recipe), "train", 0)
    assert sample.prompt == prompt
    assert sample.turns[-1].text == "a"


# ---------------------------------------------------------------------- what cannot be read


@pytest.fixture(scope="session")
def flawed_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("flawed") / "media")


def opened(samples: Samples | None) -> list[str]:
    """Open what training would; the samples' ids."""
    assert samples is not None
    for sample in samples:
        load_images(sample)
        load_audios(sample, 16_000)
    return [sample.id for sample in samples]


@pytest.mark.parametrize("name", LINES)
def test_a_sample_that_cannot_be_read_ends_it_or_is_left_out_and_counted(tmp_path, flawed_media, name):
    folder = write_task(tmp_path / "data", flawed_media, name)
    one = task(folder, metric="exact_match")
    with pytest.raises(DataError) as caught:
        opened(read_task(one, "train", 0))
    said = str(caught.value)
    assert_line(said, folder, name)

    recipe = Recipe.model_validate(
        {"model": {"path": "a/b"}, "tasks": [one.model_dump()], "data": {"on_error": "skip"}}
    )
    mixture = read_mixture(recipe, "train")
    assert opened(mixture.parts["own"]) == ["1", "3"]
    assert left_out(mixture) == {"own": {"samples": 2, "skipped": 1, "flaws": [said]}}


@pytest.mark.parametrize("skip", [False, True])
def test_of_a_list_that_breaks_off_nobody_knows_what_is_lost(tmp_path, skip):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    whole = json.dumps([{"id": str(number), "conversations": turns} for number in range(3)])
    (tmp_path / "train.json").write_text(whole[:-20])
    with pytest.raises(DataError) as caught:
        read_task(task(tmp_path, reader="llava"), "train", 0, skip=skip)
    assert str(caught.value) == (
        f"task own: {tmp_path / 'train.json'} is cut short or no JSON after 2 items (parse error: premature EOF)"
    )


@pytest.mark.parametrize("skip", [False, True])
def test_a_missing_file_is_not_skipped(tmp_path, skip):
    with pytest.raises(DataError, match=r"^task own: .*train\.jsonl cannot be read \(No such file or directory\)$"):
        read_task(task(tmp_path), "train", 0, skip=skip)


def test_where_nothing_can_be_read_the_first_flaw_is_named(folder):
    (folder / "train.jsonl").write_text("{\n" * 3)
    with pytest.raises(
        DataError,
        match=r"^task own: sample line 1: .*: Expecting property .* \(readable in split 'train': 0 of 3 samples\)$",
    ):
        read_task(task(folder), "train", 0, skip=True)


def test_of_many_flaws_the_first_are_spelled_out_and_all_are_counted(folder):
    with (folder / "train.jsonl").open("a") as file:
        file.write("{\n" * 30)
    recipe = Recipe.model_validate(
        {"model": {"path": "a/b"}, "tasks": [task(folder).model_dump()], "data": {"on_error": "skip"}}
    )
    found = left_out(read_mixture(recipe, "train"))["own"]
    assert (found["samples"], found["skipped"], len(found["flaws"])) == (50, 30, 20)
    assert found["flaws"][0].startswith(f"task own: sample line 51: {folder / 'train.jsonl'}: Expecting property")


def test_a_mended_sample_is_used_again(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({**GOOD, **more}) + "\n" for more in ({}, {"image": "a.png"}))
    )
    assert len(read_task(task(tmp_path), "train", 0, skip=True)) == 1
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    samples = read_task(task(tmp_path), "train", 0, skip=True)
    assert (len(samples), samples.store.flaws) == (2, [])


def test_an_image_that_went_bad_is_found_when_looked_at_afresh(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({**GOOD, **more}) + "\n" for more in ({}, {"image": "a.png"}))
    )
    assert len(read_task(task(tmp_path), "train", 0, skip=True)) == 2
    (tmp_path / "a.png").write_bytes(b"no image")
    assert len(read_task(task(tmp_path), "train", 0, skip=True, fresh=True)) == 1
    assert len(read_task(task(tmp_path), "train", 0, skip=True)) == 1


# ---------------------------------------------------------------------- references


UNREFERENCED = Sample("7", "own", exchange("q", "a"))


@pytest.mark.parametrize("skip", [False, True])
def test_what_is_scored_needs_references(tmp_path, monkeypatch, skip):
    fake(monkeypatch, UNREFERENCED, Sample("8", "own", exchange("q", "a"), references=("a",)))
    scored = task(tmp_path, metric="exact_match")
    line = f"task own: sample 7: {tmp_path}: it has no references, and the task has a metric"
    if skip:
        samples = read_task(scored, "train", 0, skip=True)
        assert [sample.id for sample in samples] == ["8"]
        assert [flaw.line("own") for flaw in samples.store.flaws] == [line]
    else:
        with pytest.raises(DataError) as caught:
            read_task(scored, "train", 0)
        assert str(caught.value) == line
    assert len(read_task(task(tmp_path), "train", 0, skip=skip)) == 2, "what is not scored needs none"


def test_where_answers_are_secret_references_are_not_missed(tmp_path, monkeypatch):
    fake(monkeypatch, UNREFERENCED, unanswered=frozenset({"test"}))
    scored = task(tmp_path, metric="exact_match")
    assert len(read_task(scored, "test", 0)) == 1
    with pytest.raises(DataError, match="it has no references"):
        read_task(scored, "validation", 0)
    assert [is_unanswered(scored, part) for part in ("train", "validation", "test")] == [False, False, True]


def test_what_is_held_out_of_answered_samples_is_answered(tmp_path, monkeypatch):
    fake(monkeypatch, unanswered=frozenset({"test"}))
    assert not is_unanswered(task(tmp_path, hold_out={"test": 5}), "test")


# ---------------------------------------------------------------------- relative paths


def test_a_relative_folder_in_an_option_is_relative_to_where_the_command_runs(tmp_path, monkeypatch):
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "train.json").write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": turns}]))
    for place in ("here", "there"):
        (tmp_path / place / "images").mkdir(parents=True)
        (tmp_path / place / "images/a.png").touch()
        monkeypatch.chdir(tmp_path / place)
        [sample] = read_task(task(tmp_path, reader="llava", options={"image_folder": "images"}), "train", 0)
        assert sample.images == (tmp_path / place / "images/a.png",)
