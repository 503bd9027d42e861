"""Task weights in a Trainer: eq. 2 over the whole optimizer step, however it is cut and whoever takes which part."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from equipoise import BalancedTrainer, Coordination, TaskWeighting, attach
from equipoise.data.collate import IGNORED, Collator
from equipoise.errors import DataError, RecipeError
from equipoise.models import loading
from equipoise.recipe import Model, Recipe
from equipoise.recipe_reading import parse_recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from equipoise.training.task_weighting import TaskCollator
from training import _task_gradients as step
from training._checkpoint import settings as tiny_settings

Gradients = dict[str, torch.Tensor]
UNEQUAL = {"weighter": "fixed", "weights": {"a": 3.0, "b": 0.25, "c": 1.5}}
EQUAL = {"weighter": "ew"}
#: Weights by task as a step with these tokens has them.
WEIGHTS: dict[str, Callable[[dict[str, int]], dict[str, float]]] = {
    "fixed": lambda tokens: {"a": 3.0, "b": 0.25, "c": 1.5},
    "ew": lambda tokens: dict.fromkeys(tokens, 1.0),
    "tla": lambda tokens: {task: 1 / count for task, count in tokens.items()},
}


def run(
    checkpoint: Path, out: Path, batch: int, accumulation: int, weighting: Any, dtype: str = "float32"
) -> Gradients:
    out.mkdir()
    step.main(str(checkpoint), str(out), str(batch), str(accumulation), json.dumps(weighting), dtype)
    return torch.load(out / "rank-0-of-1.pt", weights_only=True)


def by_hand(checkpoint: Path, weighter: str, dtype: str) -> tuple[float, Gradients]:
    """Eq. 2, one sample at a time, with none of the code under test but the collator."""
    model = step.load(str(checkpoint), dtype).train()
    collator = Collator(loading.load_processor(Model(path=str(checkpoint))))
    numerators: dict[str, Any] = {}
    tokens: dict[str, int] = {}
    for sample in step.samples():
        batch = collator([sample])
        log_probs = model(input_ids=batch["input_ids"]).logits[0].log_softmax(-1)
        for position, label in enumerate(batch["labels"][0].tolist()):
            if label != IGNORED:
                numerators[sample.task] = numerators.get(sample.task, 0) - log_probs[position - 1, label]
                tokens[sample.task] = tokens.get(sample.task, 0) + 1
    weights = WEIGHTS[weighter](tokens)
    loss = sum(weights[t] * numerators[t] for t in tokens) / sum(weights[t] * tokens[t] for t in tokens)
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_close(found: Gradients, expected: Gradients, relative: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= relative * value.norm(), name


def line(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.jsonl").read_text())


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-5), ("float64", 1e-10)])
def test_a_step_is_the_same_however_it_is_cut(checkpoint, tmp_path, group, dtype, relative):
    loss, expected = by_hand(checkpoint, "fixed", dtype)
    whole = run(checkpoint, tmp_path / "whole", 16, 1, UNEQUAL, dtype)
    assert_close(whole, expected, relative)
    assert_close(run(checkpoint, tmp_path / "cut", 4, 4, UNEQUAL, dtype), whole, relative)
    (tmp_path / "two").mkdir()
    group(2, step.__name__, checkpoint, tmp_path / "two", 2, 4, json.dumps(UNEQUAL), dtype)
    one, other = (torch.load(tmp_path / f"two/rank-{rank}-of-2.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(other[name], value) for name, value in one.items())
    assert_close(one, whole, relative)
    logged = [line(tmp_path / name) for name in ("whole", "cut", "two")]
    for found in logged:
        assert found["loss"] == pytest.approx(loss, rel=relative)
        for key in ("task_tokens/a", "task_tokens/b", "task_tokens/c"):
            assert found[key] == logged[0][key]
        for task in "abc":
            assert found[f"task_loss/{task}"] == pytest.approx(logged[0][f"task_loss/{task}"], rel=relative)
            assert found[f"task_weight/{task}"] == UNEQUAL["weights"][task]
    assert logged[0]["task_tokens/b"] > 10 * logged[0]["task_tokens/c"] > 0


@pytest.mark.parametrize("weighter", ["ew", "tla"])
def test_other_weighters_are_eq_2_too(checkpoint, tmp_path, weighter):
    loss, expected = by_hand(checkpoint, weighter, "float64")
    assert_close(run(checkpoint, tmp_path / "cut", 4, 4, {"weighter": weighter}, "float64"), expected, 1e-10)
    assert line(tmp_path / "cut")["loss"] == pytest.approx(loss, rel=1e-10)


def test_equal_weights_are_the_trainers_own_loss(checkpoint, tmp_path):
    own = run(checkpoint, tmp_path / "own", 4, 4, None)
    assert_close(run(checkpoint, tmp_path / "ew", 4, 4, EQUAL), own, 1e-6)


def test_fractional_weights_change_the_gradients_and_a_common_factor_does_not(checkpoint, tmp_path):
    fractional = {**UNEQUAL, "weights": {"a": 1.0, "b": 0.5, "c": 1.0}}
    sevenfold = {**fractional, "weights": {task: 7 * weight for task, weight in fractional["weights"].items()}}
    half, equal, seven = (
        run(checkpoint, tmp_path / name, 4, 4, weighting)
        for name, weighting in (("half", fractional), ("equal", EQUAL), ("seven", sevenfold))
    )
    assert all((half[name] - equal[name]).norm() > 1e-3 * equal[name].norm() for name in equal)
    assert_close(seven, half, 1e-6)


# ------------------------------------------------------------------ recipes


def make(checkpoint: Path, dataset: Path, weighting: dict[str, Any], modules: dict[str, Any], **train: Any) -> Recipe:
    """Two tasks: one asks with an instruction below, the other without."""
    content = tiny_settings(checkpoint, dataset, modules, **train)
    [first] = content["tasks"]
    second = {**first, "name": "briefly", "response_format": "say which", "max_train": 7}
    content["tasks"] = [first, second]
    content["balance"]["tasks"] = weighting
    return parse_recipe(content, "tiny")


@pytest.mark.parametrize("weighter", ["ew", "tla", "rlw", "dwa", "igbv1", "fixed"])
def test_every_weighter_runs_resumes_and_logs(checkpoint, dataset, tmp_path, weighter):
    weighting = {"weighter": weighter, **({"weights": {"briefly": 2.0}} if weighter == "fixed" else {})}
    whole, halved = (
        make(checkpoint, dataset, weighting, {"schedule": "commit"}, max_steps=6, save_steps=3) for _ in range(2)
    )
    done = train(whole, tmp_path / "whole", quiet())
    metrics = done.metrics()
    for entry in metrics:
        present = [task for task in ("colours", "briefly") if entry[f"task_tokens/{task}"]]
        assert {f"task_loss/{task}" for task in present} == {key for key in entry if key.startswith("task_loss/")}
        assert all(math.isfinite(entry[f"task_weight/{task}"]) for task in ("colours", "briefly"))
        weighted = sum(entry[f"task_weight/{t}"] * entry[f"task_tokens/{t}"] * entry[f"task_loss/{t}"] for t in present)
        denominator = sum(entry[f"task_weight/{t}"] * entry[f"task_tokens/{t}"] for t in present)
        assert entry["loss"] == pytest.approx(weighted / denominator, rel=1e-5)
        assert "kappa" in entry  # both balances at once
        by_task = [value for key, value in entry.items() if key.startswith("task_kappa/")]
        assert 1 <= len(by_task) <= 2
        assert min(by_task) <= entry["kappa"] * (1 + 1e-6)
        assert max(by_task) >= entry["kappa"] * (1 - 1e-6)
    # Killed after the checkpoint at step 3: what came later is gone.
    half = RunDirectory(tmp_path / "half")
    train(halved, half.path, quiet())
    half.done_file.unlink()
    for checkpoint_folder in half.checkpoints.glob("checkpoint-6"):
        for file in checkpoint_folder.iterdir():
            file.unlink()
        checkpoint_folder.rmdir()
    train(halved, half.path, quiet(), resume=True)
    assert half.metrics_file.read_bytes() == done.metrics_file.read_bytes()


def test_one_task_keeps_the_models_own_loss_unless_asked(make_recipe, tmp_path):
    plain = train(make_recipe(max_steps=2), tmp_path / "plain", quiet())
    assert not [key for key in plain.metrics()[0] if key.startswith("task_")]


@pytest.mark.parametrize(
    ("weighting", "reason"),
    [
        ({"weighter": "fixed"}, "weighter fixed needs weights"),
        ({"weighter": "cotbal"}, "weighter cotbal needs weights"),
        ({"weighter": "fixed", "weights": {"coluors": 2.0}}, "weight of 'coluors': no such task"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_model_is_loaded(checkpoint, dataset, tmp_path, weighting, reason):
    with pytest.raises(RecipeError, match=reason):
        train(make(checkpoint, dataset, weighting, {}), tmp_path / "run", quiet())
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ other people's trainers


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder), use_cpu=True, max_steps=2, per_device_train_batch_size=4, logging_steps=1,
        save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        label_names=["labels"], **{"remove_unused_columns": False, **more},
    )  # fmt: skip


def trainer_of(checkpoint: Path, folder: Path, cls: type[Trainer] = Trainer, **more: Any) -> Trainer:
    return cls(
        model=step.load(str(checkpoint), "float32"),
        args=arguments(folder),
        **{
            "data_collator": Collator(loading.load_processor(Model(path=str(checkpoint)))),
            "train_dataset": step.samples(),
            **more,
        },
    )


def test_attach_weights_tasks_and_evaluation_stays_unweighted(checkpoint, tmp_path):
    plain = trainer_of(checkpoint, tmp_path / "a", eval_dataset=step.samples())
    before = plain.evaluate()["eval_loss"]
    trainer = attach(
        trainer_of(checkpoint, tmp_path / "b", eval_dataset=step.samples()),
        Coordination("constant", measure=False),
        tasks=TaskWeighting("fixed", weights={"b": 9.0}),
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(before, rel=1e-5)
    trainer.train()
    assert trainer.state.log_history[0]["task_weight/b"] == 9.0


def test_samples_as_dictionaries_name_their_task_too(checkpoint, tmp_path):
    collator = Collator(loading.load_processor(Model(path=str(checkpoint))))
    encoded = [{**{k: v[0] for k, v in collator([s]).items()}, "task": s.task} for s in step.samples()]

    def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        assert all("task" not in row for row in rows)
        fill = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED}
        return {
            name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], True, value)
            for name, value in fill.items()
        }

    trainer = BalancedTrainer(
        model=step.load(str(checkpoint), "float32"), args=arguments(tmp_path, remove_unused_columns=True),
        data_collator=pad, train_dataset=encoded, coordination=Coordination("constant", measure=False),
        tasks=TaskWeighting("tla"),
    )  # fmt: skip
    trainer.train()
    assert {f"task_tokens/{task}" for task in "abc"} <= trainer.state.log_history[0].keys()


def test_samples_without_a_task_and_losses_of_their_own_are_refused(checkpoint, tmp_path):
    with pytest.raises(DataError, match="a sample has no task"):
        attach(trainer_of(checkpoint, tmp_path, train_dataset=[{"input_ids": [1]}]), tasks=TaskWeighting())
    trainer = trainer_of(checkpoint, tmp_path, compute_loss_func=lambda *_, **__: None)
    with pytest.raises(RecipeError, match="this Trainer has a compute_loss_func of its own"):
        attach(trainer, tasks=TaskWeighting())


def test_a_task_that_is_only_evaluated_has_no_place():
    collate = TaskCollator(lambda samples: {"n": len(samples)}, ["a", "b"])
    assert collate([{"task": "b"}, {"task": "z"}, {"task": "a"}])["task_ids"].tolist() == [1, -1, 0]


def quiet() -> Any:
    from rich.console import Console

    return Console(quiet=True)
