"""The evaluation job on the embedded stack: scores that mean something, beside the controls that show it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from equipoise.evaluation.evaluate import evaluate
from equipoise.models.embedded import smol_vlm
from equipoise.models.feature_store import FeatureCache
from equipoise.training import fast_paths
from equipoise.training.run_directory import RunDirectory
from evaluation._runs import finished_run, rows

CAPTIONS = {
    "name": "caption", "reader": "easy_vqa", "metric": "exact_match", "options": {"kind": "caption"},
    "max_train": 50, "max_validation": 2, "max_test": 6, "max_new_tokens": 8,
}  # fmt: skip


def run_of(folder: Path, *tasks: dict[str, Any], **sections: Any) -> RunDirectory:
    """A run whose tuned model is the embedded one."""
    run = finished_run(folder, "embedded:smol-vlm", *tasks, **sections)
    run.model.symlink_to(smol_vlm())
    return run


def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_scores_predictions_and_controls(tmp_path):
    run = run_of(tmp_path, CAPTIONS)
    scores = evaluate(run, console())
    entry = scores["tasks"]["caption"]
    assert (scores["split"], entry["metric"], entry["samples"]) == ("test", "exact_match", 6)
    assert json.loads(run.scores_file.read_text()) == scores
    assert entry["value"] > 0.8 > 0.5 > entry["shuffled_inputs"]
    assert entry["majority"] <= 0.5
    assert 0 < scores["validation_loss"] < 1
    predictions = rows(run.predictions / "caption.jsonl")
    assert len(predictions) == 6
    assert sum(row["score"] for row in predictions) / 6 == pytest.approx(entry["value"])
    for row in predictions:
        assert row["score"] == float(row["prediction"] in row["references"])
        assert row["prompt"] == "Describe the image."
        assert Path(row["images"][0]).is_file()


def test_without_controls_and_on_the_validation_part(tmp_path):
    scores = evaluate(run_of(tmp_path, CAPTIONS), console(), split="validation", controls=False)
    assert scores["split"] == "validation"
    assert scores["tasks"]["caption"].keys() == {"metric", "value", "samples"}
    assert scores["tasks"]["caption"]["samples"] == 2


def test_fast_answers_are_the_plain_ones_and_each_image_is_encoded_once(tmp_path, monkeypatch):
    caches: list[FeatureCache] = []

    def remember(*args: Any) -> FeatureCache:
        caches.append(FeatureCache(*args))
        return caches[-1]

    monkeypatch.setattr(fast_paths, "FeatureCache", remember)
    features = tmp_path / "features"
    ways = {
        "plain": {"feature_cache": 0, "onednn": False},
        "fast": {"feature_folder": str(features)},
        "again": {"feature_folder": str(features)},
    }
    runs = {name: run_of(tmp_path / name, CAPTIONS, train=settings) for name, settings in ways.items()}
    scores = {name: evaluate(run, console()) for name, run in runs.items()}
    predictions = {name: (run.predictions / "caption.jsonl").read_text() for name, run in runs.items()}
    assert predictions["plain"] == predictions["fast"] == predictions["again"]
    assert scores["plain"]["tasks"] == scores["fast"]["tasks"] == scores["again"]["tasks"]
    assert scores["fast"]["validation_loss"] == pytest.approx(scores["plain"]["validation_loss"], rel=1e-4)
    assert scores["again"] == scores["fast"]
    seen = {image for row in rows(runs["fast"].predictions / "caption.jsonl") for image in row["images"]}
    validated = 2
    first, second = caches
    assert first.misses == len(seen) + validated == len(list(features.rglob("*.safetensors")))
    assert first.hits == len(seen)  # those of shuffled inputs
    assert len(seen) > second.misses  # of how outputs are put together a process knows what it has seen
