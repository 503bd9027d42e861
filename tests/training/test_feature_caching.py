"""Cached features in a Trainer: the same run, whatever was in the cache when it began."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from equipoise import BalancedTrainer, Coordination
from equipoise.data.collate import Collator
from equipoise.models import loading
from equipoise.models.feature_store import FeatureCache
from equipoise.recipe import Lora, Model, Recipe
from equipoise.training.fast_paths import CPU_MEGABYTES, FastPaths, fast_paths
from equipoise.training.run_directory import RunDirectory
from models import zoo
from models.zoo import samples
from training._compare import learning, same, steps, watching_train

STILL = Coordination("constant", measure=False)
#: Families whose towers have rows; InternVL's tiles, Whisper's clips, BEATs' filter banks.
FAMILIES = ("llava", "blip2", "paligemma", "internvl", "smolvlm", "qwen2_audio", "voxtral", "salmonn", "audio_vision")


def build(family: str, root: Path, megabytes: int | None, accumulation: int = 1) -> BalancedTrainer:
    settings = Model(path=str(root / "checkpoint"), lora=Lora(dropout=0.1))
    torch.manual_seed(0)
    model = loading.load(settings)
    collator = Collator(loading.load_processor(settings), prefix_attention=loading.family(settings).prefix_attention)
    answers = ("red", "a square that is deep blue", "say which", "no", "deep blue", "red and red and red")
    rows = [samples.sample(family, root / "data", number % 3, answer) for number, answer in enumerate(answers)]
    return BalancedTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(root / "out"), use_cpu=True, max_steps=4, per_device_train_batch_size=3 // accumulation,
            gradient_accumulation_steps=accumulation, logging_steps=1, save_strategy="no", report_to="none",
            remove_unused_columns=False, disable_tqdm=True, dataloader_pin_memory=False, label_names=["labels"],
            learning_rate=1e-3,
        ),
        data_collator=collator, train_dataset=rows, coordination=STILL, feature_cache=megabytes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            zoo.make(family, made[family] / "checkpoint")
            samples.write(made[family] / "data")
        return made[family]

    return of


def losses(trainer: BalancedTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_has_the_losses_it_had_and_encodes_each_row_once(folder_of: Callable[[str], Path], family: str) -> None:
    runs = []
    for megabytes in (0, 10):
        trainer = build(family, folder_of(family), megabytes)
        trainer.train()
        runs.append(trainer)
    plain, cached = runs
    assert losses(cached) == pytest.approx(losses(plain), rel=1e-4)
    assert plain._fast_paths.cache is None
    cache = cached._fast_paths.cache
    assert cache is not None
    assert cache.hits >= cache.misses > 0
    assert len(cache) == cache.misses


@pytest.mark.parametrize("family", ["llava", "salmonn"])
def test_a_full_cache_and_an_empty_one_give_the_same_bits(folder_of: Callable[[str], Path], family: str) -> None:
    cold = build(family, folder_of(family), 10)
    cold.train()
    warm = build(family, folder_of(family), 10)
    warm._fast_paths.cache = cold._fast_paths.cache
    assert warm._fast_paths.cache is not None
    misses = warm._fast_paths.cache.misses
    warm.train()
    assert warm._fast_paths.cache.misses == misses
    assert losses(warm) == losses(cold)
    assert same(learning(warm), learning(cold))


def test_every_batch_shape_gives_the_same_features(folder_of: Callable[[str], Path]) -> None:
    cache = FeatureCache(10)
    for accumulation in (1, 3):
        trainer = build("llava", folder_of("llava"), 10, accumulation)
        trainer._fast_paths.cache = cache
        trainer.train()
    assert len(cache) == cache.misses == 3


def test_a_recipe_s_run_caches_for_training_measuring_and_validation(
    run: Callable[..., RunDirectory], make_recipe: Callable[..., Recipe]
) -> None:
    with watching_train() as seen:
        finished = run({"schedule": "commit"}, eval_steps=3, feature_cache=5)
    cache = seen.trainer._fast_paths.cache
    assert cache is not None
    assert cache.capacity == 5_000_000
    asked = cache.hits + cache.misses
    assert asked > 3 * cache.misses
    assert all(line["kappa"] for line in steps(finished))
    with watching_train() as seen:
        other = run({"schedule": "commit"}, eval_steps=3, feature_cache=0, name="other")
    assert seen.trainer._fast_paths.cache is None
    found, expected = ([line["loss"] for line in steps(each)] for each in (finished, other))
    assert found == pytest.approx(expected, rel=1e-4)


def trainer_with(**settings: Any) -> Any:
    found = {"device": torch.device("cpu"), "n_gpu": 0, "torch_compile": False, "fsdp": False, "deepspeed": False,
             "parallel": None, **settings}  # fmt: skip
    return SimpleNamespace(
        args=SimpleNamespace(device=found["device"], n_gpu=found["n_gpu"], torch_compile=found["torch_compile"]),
        accelerator=SimpleNamespace(parallelism_config=found["parallel"]),
        is_fsdp_enabled=found["fsdp"], is_deepspeed_enabled=found["deepspeed"], model=None,
    )  # fmt: skip


def cache_for(trainer: Any, megabytes: int | None) -> FeatureCache | None:
    return fast_paths(trainer, megabytes, None, fused_lora=True, onednn=True).cache


def test_how_much_is_cached_where_nobody_says() -> None:
    cache = cache_for(trainer_with(), None)
    assert cache is not None
    assert cache.capacity == CPU_MEGABYTES * 1_000_000
    assert cache_for(trainer_with(device=torch.device("cuda")), None) is None
    assert cache_for(trainer_with(), 0) is None
    cache = cache_for(trainer_with(device=torch.device("cuda"), n_gpu=1), 7)
    assert cache is not None
    assert cache.capacity == 7_000_000


@pytest.mark.parametrize(
    "setting",
    [
        {"n_gpu": 2},
        {"torch_compile": True},
        {"fsdp": True},
        {"deepspeed": True},
        {"parallel": SimpleNamespace(non_data_parallel_size=2)},
    ],
    ids=str,
)
def test_what_divides_or_compiles_a_model_turns_all_off(setting: dict[str, Any]) -> None:
    assert fast_paths(trainer_with(**setting), 10, None, fused_lora=True, onednn=True) == FastPaths()
    assert fast_paths(trainer_with(), 0, None, fused_lora=True, onednn=True) == FastPaths(None, True, True)
    assert cache_for(trainer_with(parallel=SimpleNamespace(non_data_parallel_size=1)), 10) is not None
