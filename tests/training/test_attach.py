"""attach(): CoMMIT on a Trainer that somebody else built, transformers' own and trl's SFTTrainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Image
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments, set_seed
from trl import SFTConfig, SFTTrainer

from equipoise import Coordination, attach
from equipoise.data.collate import Collator
from equipoise.data.readers import jsonl
from equipoise.errors import PartitionError
from equipoise.models import loading
from equipoise.recipe import Recipe
from equipoise.training.run_directory import RunDirectory
from equipoise.training.trainer import BalancedTrainer
from training._compare import learning, same

STEPS = 4
COMMIT = Coordination("commit", window=5, every=1, samples=2)
#: As torch and peft compute, to the last bit and with the same dropout.
AS_TORCH = {"fused_lora": False, "onednn": False}
MEASURE = Coordination("constant", every=1, samples=2)
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(make_recipe: Callable[..., Recipe], checkpoint: Path, dataset: Path, tmp_path: Path) -> MakeTrainer:
    """A Trainer as a user would build it; the same weights, data order and dropout each time."""

    def make(cls: type[Trainer] = Trainer, name: str = "out", arguments: Any = None, **options: Any) -> Trainer:
        set_seed(5)
        model = options.pop("model", None) or loading.load(make_recipe().model)
        return cls(
            model=model,
            args=TrainingArguments(
                output_dir=str(tmp_path / name), max_steps=STEPS, per_device_train_batch_size=2,
                gradient_accumulation_steps=2, learning_rate=3e-3, logging_steps=1,
                report_to="none", remove_unused_columns=False, disable_tqdm=True, seed=5, dataloader_pin_memory=False,
                **(arguments or {"save_strategy": "no"}),
            ),
            data_collator=Collator(AutoProcessor.from_pretrained(checkpoint)),
            train_dataset=list(jsonl.read("colours", "train", dataset)),
            **options,
        )  # fmt: skip

    return make


def finish(trainer: Trainer) -> Trainer:
    """Train to the end, right after it was built: the generators go on from where its builder seeded them."""
    trainer.train()
    return trainer


def metrics(trainer: Trainer) -> list[dict[str, Any]]:
    return RunDirectory(Path(trainer.args.output_dir)).metrics()


def test_kappa_is_in_the_log_history_and_the_log(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    assert attach(trainer, COMMIT) is trainer
    assert isinstance(trainer, Trainer)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    lines = metrics(trainer)
    assert len(history) == len(lines) == STEPS
    assert all(line["kappa"] > 0 for line in lines)
    assert [entry["kappa"] for entry in history] == [line["kappa"] for line in lines]
    assert [entry["loss"] for entry in history] == pytest.approx([line["loss"] for line in lines], abs=1e-3)


def test_balanced_trainer_and_attach_are_one_thing(make_trainer: MakeTrainer) -> None:
    attached = finish(attach(make_trainer(name="attached"), COMMIT, feature_cache=None))
    built = finish(make_trainer(BalancedTrainer, "built", coordination=COMMIT))
    assert metrics(attached) == metrics(built)
    assert len(metrics(built)) == STEPS
    assert same(learning(attached), learning(built))


def test_measuring_alone_changes_no_weight(make_trainer: MakeTrainer) -> None:
    plain = make_trainer(name="plain")
    initial = learning(plain)
    finish(plain)
    attached = finish(attach(make_trainer(name="attached"), MEASURE, supervised_logits=False, **AS_TORCH))
    assert all("kappa" in line for line in metrics(attached))
    assert same(learning(plain), learning(attached))
    assert not same(learning(plain), initial)


def test_commit_changes_weights(make_trainer: MakeTrainer) -> None:
    plain = finish(make_trainer(name="plain"))
    attached = finish(attach(make_trainer(name="attached"), COMMIT))
    assert not same(learning(plain), learning(attached))


def test_attach_twice_is_an_error(make_trainer: MakeTrainer) -> None:
    trainer = attach(make_trainer(), COMMIT)
    with pytest.raises(PartitionError, match=r"already balanced; attach\(\) once"):
        attach(trainer, COMMIT)
    with pytest.raises(PartitionError, match="already balanced"):
        attach(make_trainer(BalancedTrainer, coordination=COMMIT))


def test_a_failing_attach_leaves_the_trainer_as_it_was(make_trainer: MakeTrainer) -> None:
    plain = finish(make_trainer(name="plain"))
    trainer = make_trainer(name="failed")
    callbacks = [type(callback) for callback in trainer.callback_handler.callbacks]
    with pytest.raises(PartitionError, match="ears"):
        attach(trainer, COMMIT, modules={"ears": "no such parameter"})
    with pytest.raises(PartitionError, match=r"learning_rate\.ears"):
        attach(trainer, COMMIT, learning_rates={"ears": 1e-3})
    assert type(trainer) is Trainer
    assert [type(callback) for callback in trainer.callback_handler.callbacks] == callbacks
    assert same(learning(finish(trainer)), learning(plain))


def test_a_model_with_one_learning_module_is_refused(make_trainer: MakeTrainer, checkpoint: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    model.requires_grad_(False)
    model.model.language_model.requires_grad_(True)
    trainer = make_trainer(model=model)
    with pytest.raises(PartitionError, match="only llm has trainable parameters"):
        attach(trainer, COMMIT)
    assert type(trainer) is Trainer


def test_ready_made_optimizer_is_divided_by_module(
    make_trainer: MakeTrainer, make_recipe: Callable[..., Recipe]
) -> None:
    set_seed(5)
    model = loading.load(make_recipe().model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    trainer = attach(make_trainer(model=model, optimizers=(optimizer, None)), COMMIT)
    trainer.train()
    assert [group["module"] for group in optimizer.param_groups] == ["projector", "llm"]
    assert all(group["momentum"] == 0.9 for group in optimizer.param_groups)
    lines = metrics(trainer)
    assert [line["lr/projector"] + line["lr/llm"] for line in lines] == pytest.approx(
        [2 * 0.02 * (1 - step / STEPS) for step in range(STEPS)]  # TrainingArguments' linear decay
    )
    assert lines[1]["lr_factor/llm"] != 1


def test_ready_made_scheduler_is_a_clear_error(make_trainer: MakeTrainer, make_recipe: Callable[..., Recipe]) -> None:
    model = loading.load(make_recipe().model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = make_trainer(model=model, optimizers=(optimizer, scheduler))
    with pytest.raises(PartitionError, match="already has a learning-rate scheduler"):
        attach(trainer, COMMIT).train()


def test_each_module_has_its_own_rate(make_trainer: MakeTrainer) -> None:
    trainer = attach(make_trainer(), MEASURE, learning_rates={"projector": 1e-3, "llm": 2e-3})
    trainer.train()
    first = metrics(trainer)[0]
    assert (first["lr/projector"], first["lr/llm"]) == (1e-3, 2e-3)


def test_attached_trainer_resumes_exactly(make_trainer: MakeTrainer) -> None:
    whole = finish(attach(make_trainer(name="whole"), COMMIT))
    saving = {"save_strategy": "steps", "save_steps": 2}
    finish(attach(make_trainer(name="halves", arguments=saving), COMMIT))
    second = attach(make_trainer(name="halves"), COMMIT)
    second.train(resume_from_checkpoint=str(Path(second.args.output_dir) / "checkpoint-2"))
    assert metrics(second) == metrics(whole)
    assert same(learning(second), learning(whole))


class TestTrl:
    """The script of examples/attach_trl.py, on the tiny checkpoint."""

    @pytest.fixture
    def make_sft(self, checkpoint: Path, dataset: Path, tmp_path: Path) -> Callable[[str], SFTTrainer]:
        def make(name: str) -> SFTTrainer:
            rows = [
                {
                    "images": [str(sample.images[0])],
                    "prompt": [{"role": "user", "content": sample.turns[0].text}],
                    "completion": [{"role": "assistant", "content": sample.turns[1].text}],
                }
                for sample in jsonl.read("colours", "train", dataset)
            ]
            set_seed(5)
            return SFTTrainer(
                model=AutoModelForImageTextToText.from_pretrained(checkpoint),
                processing_class=AutoProcessor.from_pretrained(checkpoint),
                args=SFTConfig(
                    output_dir=str(tmp_path / name), max_steps=STEPS, per_device_train_batch_size=2,
                    gradient_accumulation_steps=2, learning_rate=3e-3, logging_steps=1, save_strategy="no",
                    report_to="none", max_length=None, bf16=False, disable_tqdm=True, seed=5,
                    dataloader_pin_memory=False,
                ),
                train_dataset=Dataset.from_list(rows).cast_column("images", [Image()]),
                peft_config=LoraConfig(
                    r=4, lora_alpha=8, lora_dropout=0.1, target_modules=r".*language_model.*_proj",
                    modules_to_save=["multi_modal_projector"],
                ),
            )  # fmt: skip

        return make

    def test_kappa_is_in_the_log_history_and_the_log(self, make_sft: Callable[[str], SFTTrainer]) -> None:
        trainer = attach(make_sft("commit"), COMMIT)
        assert isinstance(trainer, SFTTrainer)
        trainer.train()
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        lines = metrics(trainer)
        assert len(lines) == STEPS
        assert all(line["kappa"] > 0 for line in lines)
        assert [entry["kappa"] for entry in history] == [line["kappa"] for line in lines]
        assert all("regulariser_norm/projector" in line for line in lines[1:])

    def test_measuring_alone_changes_no_weight(self, make_sft: Callable[[str], SFTTrainer]) -> None:
        plain = finish(make_sft("plain"))
        attached = finish(attach(make_sft("attached"), MEASURE, **AS_TORCH))
        assert all("kappa" in line for line in metrics(attached))
        assert same(learning(plain), learning(attached))

    def test_what_trl_logs_is_still_there(self, make_sft: Callable[[str], SFTTrainer]) -> None:
        plain = finish(make_sft("plain"))
        attached = finish(attach(make_sft("attached"), MEASURE, **AS_TORCH))
        assert "mean_token_accuracy" in plain.state.log_history[0]
        for before, now in zip(plain.state.log_history, attached.state.log_history, strict=True):
            timeless = {key: v for key, v in before.items() if not key.endswith(("runtime", "per_second"))}
            assert {key: now[key] for key in timeless} == timeless
