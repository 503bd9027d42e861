"""The evaluation job: scores with their controls, predictions as lines, and runs that cannot be scored."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from equipoise.data.tasks import read_task
from equipoise.errors import RecipeError, RunError
from equipoise.evaluation.evaluate import _majority, evaluate, print_scores
from equipoise.models.embedded import smol_vlm
from equipoise.recipe import Recipe, Task
from equipoise.training.run_directory import RunDirectory

CAPTIONS = {
    "name": "caption", "reader": "easy_vqa", "metric": "exact_match", "options": {"caption": True},
    "max_train": 50, "max_validation": 2, "max_test": 6, "max_new_tokens": 8,
}  # fmt: skip


def finished_run(folder: Path, *tasks: dict[str, Any]) -> RunDirectory:
    """A run whose tuned model is the embedded one."""
    recipe = Recipe.model_validate({"model": {"path": "embedded:smol-vlm", "lora": None}, "tasks": list(tasks)})
    run = RunDirectory(folder)
    run.recipe_file.write_text(recipe.to_yaml(), encoding="utf-8")
    run.model.symlink_to(smol_vlm())
    run.done_file.write_text("{}")
    return run


def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def write_lines(folder: Path, split: str, answers: list[str]) -> None:
    lines = [json.dumps({"prompt": "q", "answer": answer}) for answer in answers]
    (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_scores_predictions_and_controls(tmp_path):
    run = finished_run(tmp_path, CAPTIONS)
    scores = evaluate(run, console())
    entry = scores["tasks"]["caption"]
    assert (scores["split"], entry["metric"], entry["samples"]) == ("test", "exact_match", 6)
    assert json.loads(run.scores_file.read_text()) == scores
    assert entry["value"] > 0.8 > 0.5 > entry["shuffled_inputs"]
    assert entry["majority"] <= 0.5
    assert 0 < scores["validation_loss"] < 1
    rows = [json.loads(line) for line in (run.predictions / "caption.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert sum(row["score"] for row in rows) / 6 == pytest.approx(entry["value"])
    for row in rows:
        assert row["score"] == float(row["prediction"] in row["references"])
        assert row["prompt"] == "Describe the image."
        assert Path(row["images"][0]).is_file()


def test_without_controls_and_on_the_validation_part(tmp_path):
    scores = evaluate(finished_run(tmp_path, CAPTIONS), console(), split="validation", controls=False)
    assert scores["split"] == "validation"
    assert scores["tasks"]["caption"].keys() == {"metric", "value", "samples"}
    assert scores["tasks"]["caption"]["samples"] == 2
    shown = Console(file=io.StringIO(), width=120)
    print_scores(scores, shown)
    assert "caption" in shown.file.getvalue()


def test_a_run_that_has_not_finished(tmp_path):
    run = finished_run(tmp_path, CAPTIONS)
    run.done_file.unlink()
    with pytest.raises(RunError, match="training has not finished"):
        evaluate(run, console())


@pytest.mark.parametrize("change", [{"metric": None}, {"test": None}])
def test_a_run_with_nothing_to_score(tmp_path, change):
    with pytest.raises(RecipeError, match="no task has both a metric and a test part"):
        evaluate(finished_run(tmp_path, {**CAPTIONS, **change}), console())


def test_the_majority_answers_with_the_most_frequent_of_training(tmp_path):
    write_lines(tmp_path, "train", ["yes", "no", "no", "blue"])
    write_lines(tmp_path, "test", ["yes", "yes", "yes", "yes", "yes", "No.", "no", "blue"])
    task = Task.model_validate({"name": "t", "reader": "jsonl", "path": tmp_path, "metric": "exact_match"})
    assert _majority(task, read_task(task, "test", 0), seed=0) == 0.25


def test_there_is_no_majority_without_a_training_part(tmp_path):
    write_lines(tmp_path, "test", ["yes"])
    content = {"name": "t", "reader": "jsonl", "path": tmp_path, "metric": "exact_match", "train": None}
    task = Task.model_validate(content)
    assert _majority(task, read_task(task, "test", 0), seed=0) is None
