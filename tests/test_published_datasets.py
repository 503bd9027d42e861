"""Every dataset in its owners' layout, through the command line: shown as the model sees it, answered and scored."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from equipoise.recipe_reading import load_recipe
from equipoise.training.run_directory import RunDirectory
from models import zoo

FIXTURES = Path(__file__).parent / "data" / "fixtures"
SHAREGPT = "sharegpt/ShareGPT_V4.3_unfiltered_cleaned_split.json"
#: Task: reader, path below the fixtures, metric and further settings.
TASKS: dict[str, tuple[str, str, str | None, dict[str, Any]]] = {
    "textvqa": ("textvqa", "textvqa", "vqa_accuracy", {"test": "validation"}),
    "iconqa-txt": ("iconqa", "iconqa", "multiple_choice", {"options": {"subtask": "choose_txt"}}),
    "iconqa-img": ("iconqa", "iconqa", "multiple_choice", {"options": {"subtask": "choose_img"}}),
    "iconqa-fill": ("iconqa", "iconqa", "exact_match", {"options": {"subtask": "fill_in_blank"}}),
    "aokvqa": ("aokvqa", "aokvqa", "multiple_choice", {"test": "validation"}),
    "aokvqa-da": ("aokvqa", "aokvqa", "aokvqa_direct", {"options": {"form": "direct_answer"}, "test": "validation"}),
    "vqav2": ("vqav2", "vqav2", "vqa_accuracy", {"test": "test-dev", "merge": True}),
    "gqa": ("gqa", "gqa", "exact_match", {"test": "testdev", "merge": True}),
    "chartqa": ("chartqa", "chartqa", "relaxed_accuracy", {}),
    "ocrvqa": ("ocrvqa", "ocrvqa", "exact_match", {"merge": True}),
    "clothoaqa": ("clothoaqa", "clothoaqa", "exact_match", {}),
    "macs": ("macs", "macs", "rouge_l", {"train": None, "validation": None}),
    "sdd": ("sdd", "sdd", "rouge_l", {"train": None, "validation": None}),
    "sharegpt4v": ("sharegpt4v", "sharegpt4v", "cider", {"hold_out": {"validation": 1, "test": 1}}),
    "refcoco-caption": ("refcoco", "refcoco", "cider_ptb", {"options": {"kind": "caption"}, "merge": True}),
    "refcoco-bbox": ("refcoco", "refcoco", "box_accuracy", {"options": {"kind": "bbox"}, "test": "testB"}),
    "sharegpt": ("sharegpt", SHAREGPT, None, {"validation": None, "test": None}),
    "llava": ("llava", "llava/llava_v1_5_mix665k.json", "exact_match", {"hold_out": {"test": 1}}),
    "parquet": ("parquet", "parquet", "exact_match", {}),
    "saved": ("saved", "saved", "exact_match", {}),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    tasks = [
        {"name": name, "reader": reader, "path": str(FIXTURES / path), "metric": metric, "max_new_tokens": 3, **more}
        for name, (reader, path, metric, more) in TASKS.items()
    ]
    model = {"path": str(zoo.make("audio_vision", folder / "checkpoint")), "lora": None}
    file = folder / "recipe.yaml"
    file.write_text(json.dumps({"model": model, "tasks": tasks}), encoding="utf-8")  # which is YAML too
    return file


def command(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "equipoise", *map(str, arguments)],
        text=True, capture_output=True, timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_every_dataset_is_shown_as_the_model_sees_it(recipe: Path) -> None:
    shown = command("data", recipe)
    assert "unreadable: " not in shown
    sections = dict(re.findall(r"─ ([\w-]+), as the model sees it.*?\n(.*?)(?=\n─|\Z)", shown, flags=re.DOTALL))
    assert sections.keys() == TASKS.keys()
    for name, text in sections.items():
        assert re.search(r"⟦ .+?</s>⟧", text, flags=re.DOTALL), name
    for name in ("textvqa", "iconqa-img", "sharegpt4v"):
        assert "<image>*4" in sections[name]
    assert "<Speech><audio>*" in sections["clothoaqa"]
    assert "Answer the question using a single word or phrase." in sections["gqa"]
    assert sections["gqa"].count("⟦") > 1  # merged


def test_every_dataset_is_answered_and_scored(recipe: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    settings = load_recipe(recipe)
    run.path.mkdir()
    run.recipe_file.write_text(settings.to_yaml(), encoding="utf-8")
    run.model.symlink_to(settings.model.path)
    run.done_file.write_text("{}")
    shown = command("evaluate", run.path)
    scores = run.scores()
    assert scores is not None
    scored = {name: metric for name, (_, _, metric, _) in TASKS.items() if metric is not None}
    assert {name: entry["metric"] for name, entry in scores["tasks"].items()} == scored
    for name, entry in scores["tasks"].items():
        assert name in shown
        rows = [json.loads(line) for line in (run.predictions / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == entry["samples"] > 0
        if name == "vqav2":
            assert entry["value"] is None
            assert {row["score"] for row in rows} == {None}
            upload = json.loads((run.submissions / "vqav2.json").read_text())
            assert {str(answer["question_id"]) for answer in upload} >= {row["id"] for row in rows}
        else:
            assert sum(row["score"] for row in rows) / len(rows) == pytest.approx(entry["value"])
            assert all(row["references"] for row in rows)
    assert not list(run.predictions.glob("*partial*"))
