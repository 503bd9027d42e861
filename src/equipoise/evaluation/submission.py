"""Predictions for a test set whose answers are secret, in the form that its owners' server takes.

VQAv2: a list of `{"question_id": integer, "answer": text}` (visualqa.org, "Results Format"). The server refuses a file
unless its questions are exactly those of test2015 ("Results do not correspond to current VQA set"), for test-dev too,
whose score is over its own questions; so what was not asked gets an empty answer. The owners' script brings answers
into their normal form only where people disagreed: here they are in it already, as LLaVA-1.5's authors upload them.
"""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.data.readers.files import json_items
from equipoise.data.sample import Sample
from equipoise.metrics.vqa_accuracy import normalise
from equipoise.recipe import Task

ALL_QUESTIONS = "v2_OpenEnded_mscoco_test2015_questions.json"


def vqav2_upload(task: Task, samples: Sequence[Sample], answers: Sequence[str]) -> list[dict[str, int | str]]:
    """The results file of the VQAv2 challenge.

    Args:
        task: its path is searched for the whole test2015 question file; without it, the file holds the questions
            that were asked.
    """
    given = {int(sample.id): normalise(answer) for sample, answer in zip(samples, answers, strict=True)}
    every: list[int] = []
    if task.path is not None and (task.path / ALL_QUESTIONS).is_file():
        questions = json_items(task.name, task.path / ALL_QUESTIONS, "questions.item")
        every = [question["question_id"] for question in questions]
    asked = [*given, *(question for question in every if question not in given)]
    return [{"question_id": question, "answer": given.get(question, "")} for question in asked]
