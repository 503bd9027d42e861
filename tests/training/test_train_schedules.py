"""`train` from recipe to run directory, for every schedule: what it leaves behind and that the model can be used."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor

from equipoise.locks import LOCKS
from equipoise.recipe import SCHEDULES, Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from training._checkpoint import PROJECTOR
from training._compare import learning, steps, watching_train

STEPS = 6
VARIANTS = {name: {"schedule": name} for name in SCHEDULES} | {
    "servo": {"schedule": "commit", "controller": "servo"},
    "commit, exact": {"schedule": "commit", "estimator": "exact"},
    "commit, look-back": {"schedule": "commit", "estimator": "lookback"},
}


@dataclass
class Finished:
    coordination: dict[str, str]
    recipe: Recipe
    run: RunDirectory
    initial: dict[str, torch.Tensor]
    trained: dict[str, torch.Tensor]
    printed: str


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def finished(
    request: pytest.FixtureRequest, make_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    recipe, screen = make_recipe(request.param), io.StringIO()
    with watching_train() as seen:
        run = train(recipe, tmp_path_factory.mktemp("run") / "run", Console(file=screen, width=160))
    return Finished(request.param, recipe, run, seen.initial, learning(seen.trainer), screen.getvalue())


def test_run_directory_holds_what_it_promises(finished: Finished) -> None:
    folder = finished.run.path
    assert load_recipe(folder / "recipe.yaml") == finished.recipe
    assert json.loads((folder / "environment.json").read_text())["torch"] == torch.__version__
    assert json.loads((folder / "done.json").read_text()) == {"steps": STEPS}
    assert len(finished.run.timings()) == STEPS
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [LOCKS]


def test_module_table_is_written_and_printed(finished: Finished) -> None:
    rows = {row["module"]: row for row in json.loads((finished.run.path / "modules.json").read_text())}
    assert list(rows) == ["projector", "vision_tower", "llm"]
    assert [row["kind"] for row in rows.values()] == ["full", "frozen", "LoRA"]
    assert rows["projector"]["trainable"] == sum(v.numel() for n, v in finished.trained.items() if "projector" in n)
    assert rows["llm"]["trainable"] == sum(v.numel() for n, v in finished.trained.items() if "lora_" in n)
    assert all(f"{row['trainable']:,}" in finished.printed for row in rows.values())


def test_metrics_have_a_line_a_step(finished: Finished) -> None:
    lines = finished.run.metrics()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        wanted = {f"{kind}/{name}" for kind in ("lr", "lr_factor", "grad_norm") for name in ("projector", "llm")}
        assert wanted | {"loss", "epoch"} <= line.keys()
        assert all(isinstance(line[key], float) and math.isfinite(line[key]) for key in wanted | {"loss"})


def test_every_usable_measurement_is_logged_as_kappa(finished: Finished) -> None:
    lines = steps(finished.run)
    measured = [line["step"] for line in lines if "kappa" in line]
    if finished.coordination["schedule"].endswith("-cd"):
        # The waiting module has no drift to compare with: nothing is measured, and that is no mishap to count.
        assert measured == []
        assert not any("measurements_skipped" in line for line in lines)
    else:
        first = 2 if finished.coordination.get("estimator") == "lookback" else 1
        assert measured == list(range(first, STEPS + 1))
    for line in lines:
        if "kappa" in line:
            assert line["kappa"] == pytest.approx(line["drift/llm"] / line["drift/projector"], rel=1e-12)


def test_factors_are_the_schedules(finished: Finished) -> None:
    factors = [(line["lr_factor/projector"], line["lr_factor/llm"]) for line in steps(finished.run)]
    match finished.coordination["schedule"]:
        case "constant":
            assert factors == [(1, 1)] * STEPS
        case "encoder-lr-up":
            assert factors == [(10, 1)] * STEPS
        case "llm-lr-up":
            assert factors == [(1, 10)] * STEPS
        case "feature-cd":
            assert factors == [(1, 0)] * 3 + [(0, 1)] * 3
        case "language-cd":
            assert factors == [(0, 1)] * 3 + [(1, 0)] * 3
        case _:
            assert factors[0] == (1, 1)
            assert all(sum(pair) == pytest.approx(2) for pair in factors)
            assert factors[-1] != (1, 1)


def test_saved_model_opens_without_us_and_is_the_trained_one(finished: Finished, checkpoint: Path) -> None:
    base = AutoModelForImageTextToText.from_pretrained(checkpoint)
    before = base.state_dict()[PROJECTOR].clone()
    opened = PeftModel.from_pretrained(base, finished.run.model)
    found = dict(opened.named_parameters())
    assert not torch.equal(
        found[f"base_model.model.{PROJECTOR}".replace(".weight", ".modules_to_save.default.weight")], before
    )
    assert finished.trained.keys() <= found.keys()
    for name, value in finished.trained.items():
        assert torch.equal(found[name], value), name


def test_both_modules_moved(finished: Finished) -> None:
    moved = {name for name, value in finished.trained.items() if not torch.equal(value, finished.initial[name])}
    assert any("projector" in name for name in moved)
    assert any("lora_A" in name for name in moved)
    assert any("lora_B" in name for name in moved)


def test_saved_processor_is_whole(finished: Finished) -> None:
    assert AutoProcessor.from_pretrained(finished.run.model).chat_template
