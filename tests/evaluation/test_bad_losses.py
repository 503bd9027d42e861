"""A validation loss that is no number: null in the file, in words on the screen, and no error."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.evaluation.evaluate import print_scores
from equipoise.evaluation.loss import mean_loss
from equipoise.training.run_directory import write_json


def test_a_mean_over_no_token_is_no_number():
    assert math.isnan(mean_loss([(0.0, 0), (0.0, 0)]))
    assert mean_loss([(0.0, 0), (3.0, 2)]) == 1.5


@pytest.mark.parametrize("loss", [None, 0.25])
def test_it_is_said_in_words(loss):
    out = io.StringIO()
    print_scores({"split": "test", "tasks": {}, "validation_loss": loss}, Console(file=out, width=200))
    assert ("validation loss 0.2500 nats a token" if loss else "validation loss is not finite") in out.getvalue()


def test_files_hold_json_whatever_the_numbers(tmp_path: Path):
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    write_json(tmp_path / "a.json", {"a": math.nan, "b": [1.5, math.inf, {"c": (-math.inf, 2)}], "d": "nan", "e": True})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == {
        "a": None, "b": [1.5, None, {"c": [None, 2]}], "d": "nan", "e": True,
    }  # fmt: skip
