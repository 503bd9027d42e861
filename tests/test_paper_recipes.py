"""The recipes for the papers' own runs, each run for two steps as it stands on a toy checkpoint of the same class."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForMultimodalLM

from equipoise.models.loading import load_tuned
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.training.run import train
from models import zoo

FIXTURES = Path(__file__).parent / "data" / "fixtures"
RECIPES = Path(__file__).parents[1] / "recipes" / "papers"
TABLE_1 = {
    "blip2": ("aokvqa", "iconqa", "textvqa"),
    "internvl2": ("aokvqa", "iconqa", "textvqa"),
    "llava": ("aokvqa", "iconqa", "textvqa"),
    "salmonn": ("clothoaqa", "macs", "sdd"),
}
CELLS = [f"commit/{model}-{task}.yaml" for model, tasks in TABLE_1.items() for task in tasks]
MIXTURE = "cotbal/llava-1.5-7b.yaml"
ENCODER = {"blip2": "qformer", "internvl2": "projector", "llava": "projector", "salmonn": "qformer"}


def family_of(name: str) -> str:
    return Path(name).stem.split("-")[0]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a family's toy checkpoint, once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        family = {"internvl2": "internvl"}.get(family_of(name), family_of(name))
        if family not in made:
            made[family] = zoo.make(family, tmp_path_factory.mktemp(family))
        return made[family]

    return make


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without data, for recipes name their data by relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_data(name: str) -> None:
    """The folders that a recipe names, in their owners' layout."""
    for folder in re.findall(r"path: data/([a-z0-9]+)", "\n".join(lines(name))):
        shutil.copytree(FIXTURES / folder, Path("data", folder), dirs_exist_ok=True)


def lines(name: str) -> list[str]:
    return (RECIPES / name).read_text(encoding="utf-8").splitlines()


def toy(name: str, checkpoint: Path, *more: str) -> Recipe:
    """The recipe as it stands but for the model, and cut to two steps."""
    held_out = ["tasks.sharegpt4v.hold_out={validation: 1, test: 1}"] if name == MIXTURE else []  # of four samples
    sizes = [
        *held_out,
        "train.max_steps=2",
        "train.batch_size=2",
        "train.gradient_accumulation=1",
        "train.save_steps=100",
    ]
    return load_recipe(RECIPES / name, [f"model.path={checkpoint}", *sizes, "train.threads=1", *more])


def test_table_1_is_complete():
    assert sorted(str(file.relative_to(RECIPES)) for file in RECIPES.rglob("*.yaml")) == sorted([*CELLS, MIXTURE])


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_has_the_papers_settings(name, checkpoint, here):
    make_data(name)
    recipe = toy(name, checkpoint(name))
    assert {task.reader for task in recipe.tasks} == {Path(name).stem.split("-")[1]}
    assert all(task.metric is not None for task in recipe.tasks)
    assert recipe.train.learning_rate == 1e-4
    assert (recipe.model.lora.rank, recipe.model.lora.alpha, recipe.model.lora.dropout) == (16, 32, 0.05)
    assert recipe.model.train[ENCODER[family_of(name)]] == "full"
    assert set(recipe.model.train.values()) == {"full", "frozen"}
    modules = recipe.balance.modules
    assert (modules.schedule, modules.estimator, modules.average) == ("commit", "exact", "mean")
    assert (modules.regulariser_cap, modules.min_factor) == (None, 0.0)


@pytest.mark.parametrize(
    "name", [name if name.endswith(("textvqa.yaml", "macs.yaml")) else pytest.param(name, marks=pytest.mark.slow)
             for name in CELLS]
)  # fmt: skip
def test_a_cell_runs_and_its_model_opens_with_transformers_and_peft(name, checkpoint, here):
    make_data(name)
    recipe = toy(name, checkpoint(name))
    run = train(recipe, here / "run", Console(quiet=True))
    metrics = run.metrics()
    assert [line["step"] for line in metrics] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in metrics)
    # At bf16, two steps of 1e-4 from zero LoRA may not show in the outputs; the drifts were measured all the same.
    assert all(f"drift/{module}" in metrics[-1] for module in ("llm", ENCODER[family_of(name)]))
    [kind] = {row["kind"] for row in json.loads((run.path / "modules.json").read_text()) if row["module"] == "llm"}
    assert kind == "LoRA"
    base = AutoModelForMultimodalLM.from_pretrained(recipe.model.path, dtype=torch.bfloat16)
    plain = PeftModel.from_pretrained(base, run.model).eval()
    ours = load_tuned(recipe.model, run.model)
    ids = torch.tensor([[5, 6, 7, 8]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family_of(name) == "blip2":
        inputs["pixel_values"] = torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(plain(**inputs).logits, ours(**inputs).logits)


def test_the_mixture_has_llava_1_5s_settings_and_runs(checkpoint, here):
    make_data(MIXTURE)
    recipe = toy(MIXTURE, checkpoint(MIXTURE), "train.max_steps=4", "balance.modules.every=2")
    assert [task.name for task in recipe.tasks if task.train is not None] == [
        "sharegpt4v", "refcoco-caption", "vqav2", "gqa", "chartqa", "ocrvqa", "refcoco-bbox", "sharegpt",
    ]  # fmt: skip
    assert [task.name for task in recipe.tasks if task.train is None] == [
        "refcoco-caption-testB", "refcocog-caption", "refcoco-bbox-testB", "refcocog-bbox",
    ]  # fmt: skip
    as_written = load_recipe(RECIPES / MIXTURE)
    sizes = {task.name: task for task in as_written.tasks}
    assert sizes["sharegpt4v"].hold_out == {"validation": 2000, "test": 2000}
    assert sizes["ocrvqa"].max_train == 80_000
    assert [sizes[name].max_validation for name in ("vqav2", "gqa", "ocrvqa")] == [20_000] * 3
    assert [sizes[name].max_turns for name in ("refcoco-caption", "refcoco-bbox")] == [9, 9]  # fewer than ten
    merged = [task.name for task in as_written.tasks if task.merge]
    assert merged == ["refcoco-caption", "vqav2", "gqa", "chartqa", "ocrvqa", "refcoco-bbox"]
    settings = as_written.train
    assert settings.batch_size * settings.gradient_accumulation == 128
    assert (settings.learning_rate, settings.lr_scheduler) == (2e-5, "cosine")
    assert (settings.epochs, settings.warmup) == (1, 0.03)
    assert (settings.weight_decay, settings.max_length, settings.precision) == (0, 2048, "bf16")
    assert as_written.model.lora is None
    assert as_written.model.train == {"projector": "full", "vision_tower": "frozen", "llm": "full"}
    run = train(recipe, here / "run", Console(quiet=True))
    assert len(run.metrics()) == 4
    AutoModelForMultimodalLM.from_pretrained(run.model)
