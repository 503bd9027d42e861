"""Balance composed with what else a Trainer does: accumulation, precision, clipping, schedulers, checkpointing."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import get_cosine_schedule_with_warmup

from equipoise.errors import DataError
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from training._compare import learning, same, steps, watching_train, weights

Run = Callable[..., RunDirectory]
MODULES = ("projector", "llm")
ON_CPU = {"use_cpu": True}  # transformers refuses bf16 on a CPU that it was not told to use


def cosine(rate: float, warmup: int, total: int) -> list[float]:
    """The learning rate at each step, by transformers' own scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, total)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", ["commit", "commit-clr", "encoder-lr-up"])
def test_logged_rates_are_the_schedulers_times_the_factors(run: Run, schedule: str) -> None:
    lines = steps(run({"schedule": schedule}, max_steps=10, warmup=0.3, learning_rate=0.004))
    expected = cosine(0.004, warmup=3, total=10)
    for name in MODULES:
        factors = [line[f"lr_factor/{name}"] for line in lines]
        rates = [line[f"lr/{name}"] for line in lines]
        assert rates == pytest.approx([rate * factor for rate, factor in zip(expected, factors)], rel=1e-12)
        assert any(factor != 1 for factor in factors) == (schedule != "encoder-lr-up" or name == "projector")


def test_first_step_of_a_warm_up_is_not_measured(run: Run) -> None:
    lines = steps(run({"schedule": "commit"}, max_steps=6, warmup=0.5))
    assert [line["step"] for line in lines if "kappa" in line] == [2, 3, 4, 5, 6]
    assert not any("measurements_skipped" in line for line in lines)


def test_each_module_has_its_own_rate(run: Run) -> None:
    rates = {"projector": 0.004, "llm": 0.0005}
    lines = steps(run({"schedule": "commit-clr"}, learning_rate=rates, warmup=0.34))
    for name, rate in rates.items():
        expected = [r * line[f"lr_factor/{name}"] for r, line in zip(cosine(rate, 3, 6), lines)]
        assert [line[f"lr/{name}"] for line in lines] == pytest.approx(expected, rel=1e-12)


def test_optimizer_moves_each_module_by_its_own_rate(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    rates = {"projector": 0.004, "llm": 0.0005}
    recipe = make_recipe({"schedule": "constant"}, learning_rate=rates, max_steps=1)
    with watching_train() as seen:
        train(recipe, tmp_path / "run", Console(file=io.StringIO()))
    for name, value in learning(seen.trainer).items():
        largest = (value - seen.initial[name]).abs().max().item()
        # Adam's first step is the learning rate itself, in the sign of the gradient; LoRA's A has none yet.
        rate = 0.0 if "lora_A" in name else rates["projector" if "projector" in name else "llm"]
        assert largest == pytest.approx(rate, rel=1e-3), name


def test_accumulation_makes_the_step_of_one_large_batch(run: Run) -> None:
    coordination = {"schedule": "commit", "estimator": "exact"}
    small = steps(run(coordination, "small", dropout=0.0, batch_size=2, gradient_accumulation=4))
    large = steps(run(coordination, "large", dropout=0.0, batch_size=8, gradient_accumulation=1))
    assert [line["loss"] for line in small] == pytest.approx([line["loss"] for line in large], rel=2e-4)
    assert [line["kappa"] for line in small] == pytest.approx([line["kappa"] for line in large], rel=2e-2)


def test_more_micro_batches_than_samples_to_measure_on(run: Run) -> None:
    lines = steps(run({"schedule": "commit", "samples": 2}, max_steps=2, gradient_accumulation=5, batch_size=1))
    assert all(line["kappa"] > 0 for line in lines)


def test_bf16_needs_no_gpu(run: Run) -> None:
    assert run({"schedule": "constant"}, max_steps=1, precision="bf16").done


def test_bf16_measures_an_amplified_step(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe({"schedule": "commit"}, precision="bf16", arguments=ON_CPU, learning_rate=1e-3)
    with watching_train() as seen:
        lines = steps(train(recipe, tmp_path / "run", Console(file=io.StringIO())))
    assert seen.trainer.coordination.amplification == 8.0
    assert lines[0]["amplification"] in (8.0, 4.0, 2.0, 1.0)
    assert all(math.isfinite(line["kappa"]) and line["kappa"] > 0 for line in lines)
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_what_learns_is_float32_under_bf16_and_the_rest_is_as_loaded(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe({"schedule": "constant"}, precision="bf16", arguments=ON_CPU, max_steps=1)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": "bfloat16"})})
    with watching_train() as seen:
        train(recipe, tmp_path / "run", Console(file=io.StringIO()))
    dtypes = {(p.requires_grad, p.dtype) for p in seen.trainer.model.parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}


def test_bf16_finds_the_balance_that_float32_finds(run: Run) -> None:
    coordination = {"schedule": "constant", "estimator": "exact"}
    bf16 = steps(run(coordination, "bf16", precision="bf16", arguments=ON_CPU, dropout=0.0))
    float32 = steps(run(coordination, "float32", dropout=0.0))
    assert [line["loss"] for line in bf16] != [line["loss"] for line in float32]
    assert [line["loss"] for line in bf16] == pytest.approx([line["loss"] for line in float32], rel=2e-2)
    # One step alone may be off by half, and which one is depends on the processor's bf16.
    errors = [abs(math.log(one["kappa"] / other["kappa"])) for one, other in zip(bf16, float32)]
    assert sum(errors) / len(errors) < math.log(1.3)


def test_float32_is_not_amplified(run: Run) -> None:
    assert not any("amplification" in line for line in steps(run({"schedule": "commit"}, max_steps=2)))


@pytest.mark.parametrize("schedule", ["constant", "commit"])
def test_clipping_bounds_the_step_but_not_the_logged_norm(
    make_recipe: Callable[..., Recipe], tmp_path: Path, schedule: str
) -> None:
    recipe = make_recipe(
        {"schedule": schedule},
        optimizer="sgd",
        learning_rate=0.5,
        lr_scheduler="constant",
        max_grad_norm=0.01,
        max_steps=1,
    )
    with watching_train() as seen:
        [line] = steps(train(recipe, tmp_path / "run", Console(file=io.StringIO())))
    moved = [value - seen.initial[name] for name, value in learning(seen.trainer).items()]
    assert math.hypot(line["grad_norm/projector"], line["grad_norm/llm"]) > 0.1
    assert torch.stack([m.norm() for m in moved]).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_gradient_checkpointing_changes_no_loss(run: Run) -> None:
    coordination = {"schedule": "commit", "estimator": "lookback"}
    with_it = steps(run(coordination, "with", gradient_checkpointing=True))
    without = steps(run(coordination, "without"))
    assert [line["loss"] for line in with_it] == pytest.approx([line["loss"] for line in without], abs=1e-5)
    kappas = [[line["kappa"] for line in lines if "kappa" in line] for lines in (with_it, without)]
    assert kappas[0] == pytest.approx(kappas[1], rel=1e-2)


def test_gradient_checkpointing_is_on(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with watching_train() as seen:
        recipe = make_recipe({"schedule": "constant"}, gradient_checkpointing=True, max_steps=1)
        train(recipe, tmp_path / "run", Console(file=io.StringIO()))
    layers = [m for m in seen.trainer.model.modules() if type(m).__name__ == "LlamaDecoderLayer"]
    assert layers
    assert all(layer.gradient_checkpointing for layer in layers)


def test_validation_loss_is_logged_each_eval_steps(run: Run) -> None:
    lines = run({"schedule": "commit"}, eval_steps=2).metrics()
    found = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in found] == [2, 4, 6]
    assert all(line.keys() == {"step", "validation_loss"} for line in found)
    assert [line["step"] for line in lines] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert found[-1]["validation_loss"] < found[0]["validation_loss"]


def test_evaluating_changes_no_weight(run: Run) -> None:
    evaluated, plain = run({"schedule": "commit"}, "evaluated", eval_steps=2), run({"schedule": "commit"}, "plain")
    assert same(weights(evaluated.model), weights(plain.model))


def test_epochs_decide_where_max_steps_does_not(run: Run) -> None:
    lines = steps(run({"schedule": "feature-cd"}, max_steps=None, epochs=1.0))
    assert [line["epoch"] for line in lines] == pytest.approx([step / 6 for step in range(1, 7)])
    assert [line["lr_factor/llm"] for line in lines] == [0, 0, 0, 1, 1, 1]  # it learned the number of steps


def test_further_arguments_reach_the_trainer(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with watching_train() as seen:
        train(make_recipe(arguments={"adam_beta2": 0.9}, max_steps=1), tmp_path / "run", Console(file=io.StringIO()))
    assert {group["betas"][1] for group in seen.trainer.optimizer.param_groups} == {0.9}


def test_what_a_worker_process_cannot_read_is_one_line_too(
    make_recipe: Callable[..., Recipe], dataset: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(dataset, tmp_path / "data")
    (folder / "images" / "train-5.png").write_bytes(b"no image")
    content = make_recipe(batch_size=8, arguments={"dataloader_num_workers": 1}).model_dump()
    content["tasks"][0]["path"] = folder
    with pytest.raises(DataError) as caught:
        train(parse_recipe(content, "tiny"), tmp_path / "run", Console(file=io.StringIO()))
    broken = folder / "images" / "train-5.png"
    assert str(caught.value).startswith(f"task colours: sample train5: {broken}: image cannot be read (")
    assert len(str(caught.value).splitlines()) == 1
