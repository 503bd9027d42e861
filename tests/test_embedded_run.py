"""The main job on the real embedded model and data, a few steps of it, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

OVERRIDES = ["train.max_steps=3", "tasks.vqa.max_test=12", "tasks.vqa.max_validation=12", "balance.modules.every=1"]


def test_train_evaluate_and_report_on_the_embedded_stack(
    command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    def equipoise(*arguments: Any) -> str:
        done = command(*arguments)
        assert done["status"] == 0, done["errors"][-2000:]
        printed: str = done["stdout"]
        return printed

    recipe = resources.files("equipoise") / "recipes" / "demo.yaml"
    run = tmp_path / "run"
    printed = equipoise("train", str(recipe), *OVERRIDES, "--out", str(run))
    assert "projector" in printed
    assert "LoRA" in printed
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["kappa"] > 0 for line in lines[1:])  # the first step of the warm-up has a rate of 0
    assert lines[2]["regulariser_norm/llm"] > 0
    assert lines[2]["lr_factor/llm"] + lines[2]["lr_factor/projector"] == 2

    equipoise("evaluate", str(run))
    scores = json.loads((run / "scores.json").read_text())
    predictions = [json.loads(line) for line in (run / "predictions" / "vqa.jsonl").read_text().splitlines()]
    assert scores["tasks"]["vqa"]["value"] == sum(line["score"] for line in predictions) / 12
    assert 0 < scores["validation_loss"] < 10

    assert str(run / "report.html") in equipoise("report", str(run)).replace("\n", "")
    assert "kappa" in (run / "report.html").read_text().lower()
