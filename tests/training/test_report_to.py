"""`report_to`: TensorBoard, W&B and Trackio get what `metrics.jsonl` has, under the same names below `train/`.

TensorBoard is the real one, read back from its event file. W&B and Trackio are stand-ins with the functions that
transformers' own callbacks call: what those callbacks hand over is what is tested.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoProcessor, Trainer, TrainingArguments

from equipoise import Coordination, TaskWeighting, attach
from equipoise.data.collate import Collator
from equipoise.data.readers import jsonl
from equipoise.errors import RecipeError
from equipoise.models import loading
from equipoise.recipe import Recipe
from equipoise.training.preflight import preflight
from equipoise.training.run_directory import RunDirectory

STEPS = 4
NOT_TRAINERS = ("step", "epoch")
"""Keys of `metrics.jsonl` that say where a line stands."""


def expected(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of `metrics.jsonl` as a tracker should have it."""
    return {f"train/{key}": value for key, value in line.items() if key not in NOT_TRAINERS and value is not None}


def assert_has(found: Mapping[str, float], line: Mapping[str, Any]) -> None:
    wanted = expected(line)
    assert {"train/kappa", "train/kappa_average", "train/drift/llm", "train/lr/llm", "train/loss"} <= wanted.keys()
    assert wanted.keys() <= found.keys()
    loss = wanted.pop("train/loss")
    assert found["train/loss"] == pytest.approx(loss, abs=1e-3)  # Trainer's own, in float32
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, rel=1e-6), key  # an event file holds float32


def events(folder: Path) -> EventAccumulator:
    (file,) = folder.rglob("events.out.tfevents.*")
    return EventAccumulator(str(file.parent), size_guidance={"scalars": 0}).Reload()


def at_step(found: EventAccumulator, step: int) -> dict[str, float]:
    scalars = {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}
    return {tag: event.value for tag, events in scalars.items() for event in events if event.step == step}


def test_tensorboard_of_a_recipe(run: Callable[..., RunDirectory]) -> None:
    made = run({"schedule": "commit-clr"}, max_steps=STEPS, eval_steps=2, report_to=["tensorboard"])
    found = events(made.checkpoints / "runs")
    steps = [line for line in made.metrics() if "loss" in line]
    assert len(steps) == STEPS
    for line in steps:
        assert_has(at_step(found, line["step"]), line)
    validation = {line["step"]: line["validation_loss"] for line in made.metrics() if "validation_loss" in line}
    assert sorted(validation) == [2, 4]
    for step, value in validation.items():
        assert at_step(found, step)["eval/loss"] == pytest.approx(value, rel=1e-6)


@pytest.fixture
def make_attached(
    make_recipe: Callable[..., Recipe], checkpoint: Path, dataset: Path, tmp_path: Path
) -> Callable[[str], Trainer]:
    """Somebody's Trainer that reports somewhere, with two tasks."""

    def make(report_to: str) -> Trainer:
        read = jsonl.read("colours", "train", dataset)
        samples = [replace(sample, task=("squares", "others")[number % 2]) for number, sample in enumerate(read)]
        trainer = Trainer(
            model=loading.load(make_recipe().model),
            args=TrainingArguments(
                output_dir=str(tmp_path / "out"), max_steps=STEPS, per_device_train_batch_size=4, learning_rate=3e-3,
                logging_steps=1, report_to=report_to, save_strategy="no", remove_unused_columns=False,
                disable_tqdm=True, dataloader_pin_memory=False,
            ),
            data_collator=Collator(AutoProcessor.from_pretrained(checkpoint)),
            train_dataset=samples,
        )  # fmt: skip
        return attach(trainer, Coordination("commit", window=5, samples=2), tasks=TaskWeighting("ew"))

    return make


def test_tensorboard_of_an_attached_trainer(make_attached: Callable[[str], Trainer], tmp_path: Path) -> None:
    make_attached("tensorboard").train()
    found = events(tmp_path / "out" / "runs")
    for line in RunDirectory(tmp_path / "out").metrics():
        assert "task_tokens/squares" in line
        assert_has(at_step(found, line["step"]), line)


class Config(dict):
    """A tracker's settings."""

    def update(self, values: Mapping[str, Any], allow_val_change: bool = False) -> None:
        super().update(values)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **has: Any) -> list[dict[str, Any]]:
    """Put a module in a tracker's place; what is logged to it comes here."""
    logged: list[dict[str, Any]] = []
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    common = {"init": lambda **_: None, "finish": lambda: None, "config": Config(), "log": logged.append}
    for key, value in {**common, **has}.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return logged


def assert_logged(logged: list[dict[str, Any]], folder: Path) -> None:
    by_step = {entry["train/global_step"]: entry for entry in logged if "train/kappa" in entry}
    lines = RunDirectory(folder).metrics()
    assert len(lines) == STEPS
    for line in lines:
        assert_has(by_step[line["step"]], line)


def test_wandb_is_handed_the_same(
    make_attached: Callable[[str], Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(_label=lambda **_: None, summary={})
    logged = stand_in(monkeypatch, "wandb", run=run, define_metric=lambda *_, **__: None)
    for name in ("wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.config_util"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["wandb.sdk.lib.config_util"], "ConfigError", KeyError, raising=False)
    make_attached("wandb").train()
    assert_logged(logged, tmp_path / "out")


def test_trackio_is_handed_the_same(
    make_attached: Callable[[str], Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))
    logged = stand_in(monkeypatch, "trackio", context_vars=space)
    make_attached("trackio").train()
    assert_logged(logged, tmp_path / "out")


def test_a_tracker_that_cannot_be_had_is_one_line_before_any_weights_load(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"train\.report_to: found 'tensorbord'; allowed: .*tensorboard, trackio, "):
        preflight(make_recipe(report_to=["tensorbord"]))
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    with pytest.raises(RecipeError, match=r"train\.report_to: tensorboard is not installed"):
        preflight(make_recipe(report_to=["tensorboard"]))
    preflight(make_recipe(report_to=[]))
