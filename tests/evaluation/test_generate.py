"""Greedy answers: in batches the same as one by one. The control: every sample gets another image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from equipoise.data.readers import easy_vqa
from equipoise.data.sample import Sample, exchange
from equipoise.data.tasks import read_task
from equipoise.evaluation.generate import TransformersEngine, with_shuffled_inputs
from equipoise.recipe import Task


@pytest.fixture(scope="module")
def captions() -> list[Sample]:
    return list(easy_vqa.read("caption", "validation", kind="caption"))


@pytest.fixture(scope="module")
def questions() -> list[Sample]:
    return list(easy_vqa.read("vqa", "validation"))


def test_batches_padded_on_the_left_answer_as_samples_alone_do(model, collator, captions, questions):
    text = Sample("t", "t", exchange("What is the capital of France?", "Paris"))
    samples = [captions[0], questions[5], text, captions[1], questions[0]]
    engine = TransformersEngine(model, collator)
    alone = [engine.answer([sample], max_new_tokens=6)[0] for sample in samples]
    assert engine.answer(samples, max_new_tokens=6) == alone
    assert len(set(alone)) > 3, "answers that do not differ prove nothing"


def test_answers_are_bare_texts_of_bounded_length(model, collator, captions):
    engine = TransformersEngine(model, collator)
    [whole], [cut] = (engine.answer(captions[:1], max_new_tokens=n) for n in (8, 1))
    assert whole == whole.strip()
    assert "<|" not in whole
    assert whole.startswith(cut)
    assert len(collator.processor.tokenizer(cut)["input_ids"]) == 1


def shuffled_pairs(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    return list(zip(samples, with_shuffled_inputs(samples), strict=True))


@pytest.mark.parametrize("limit", [None, 200, 201])
def test_every_easy_vqa_question_gets_another_image(limit):
    task = Task.model_validate({"name": "vqa", "reader": "easy_vqa", "max_test": limit})
    pairs = shuffled_pairs(read_task(task, "test", seed=0))
    assert [pair for pair in pairs if pair[0].images == pair[1].images] == []


def test_only_the_images_change_and_none_is_lost(questions):
    pairs = shuffled_pairs(questions)
    for one, other in pairs:
        assert (one.id, one.turns, one.references, one.task) == (other.id, other.turns, other.references, other.task)
    assert {one.images for one, _ in pairs} == {other.images for _, other in pairs}


def test_a_list_that_asks_about_all_images_twice():
    samples = [Sample(f"{q}-{i}", "t", exchange("q", "a"), (Path(f"{i}.png"),)) for q in range(2) for i in range(6)]
    assert [one for one, other in shuffled_pairs(samples) if one.images == other.images] == []


def test_a_part_of_shuffled_samples_is_that_part_of_all(questions):
    shuffled = with_shuffled_inputs(questions)
    assert len(shuffled) == len(questions)
    assert shuffled[3:6] == list(shuffled)[3:6]
    assert shuffled[-1] == list(shuffled)[-1]


def test_clips_are_swapped_for_clips_and_images_for_images():
    heard = [Sample(f"a{i}", "t", exchange("q", "a"), audios=(Path(f"{i}.wav"),)) for i in range(3)]
    seen = [Sample(f"b{i}", "t", exchange("q", "a"), images=(Path(f"{i}.png"),)) for i in range(3)]
    read = [Sample("c", "t", exchange("q", "a"))]
    for one, other in shuffled_pairs([heard[0], seen[0], *read, seen[1], heard[1], heard[2], seen[2]]):
        assert (len(one.images), len(one.audios)) == (len(other.images), len(other.audios))
        if one.id != "c":
            assert (one.images, one.audios) != (other.images, other.audios)
