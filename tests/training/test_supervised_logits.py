"""The LM head on supervised positions alone: the same gradients as on all of them, for every class that allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import CausalLMOutput

from equipoise import BalancedTrainer, Coordination, TaskWeighting, attach
from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.errors import RecipeError
from equipoise.models import loading
from equipoise.recipe import Lora, Model
from equipoise.training import supervised_logits
from equipoise.training import trainer as trainer_module
from equipoise.training.supervised_logits import SupervisedPlaces
from models import zoo
from models.zoo import samples
from training import _task_gradients as texts

STILL = Coordination("constant", measure=False)
WEIGHTS = TaskWeighting("fixed", {"a": 3.0, "b": 0.25, "c": 1.5})
Gradients = dict[str, torch.Tensor]


class InOrder(BalancedTrainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class PlainInOrder(Trainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class Gradient(TrainerCallback):
    """Keeps what the optimizer is about to see."""

    def __init__(self) -> None:
        self.found: Gradients = {}

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        self.found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    return TrainingArguments(
        **{
            "output_dir": str(folder), "use_cpu": True, "optim": "sgd", "max_steps": 1, "max_grad_norm": 0.0,
            "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "remove_unused_columns": False, "disable_tqdm": True,
            "dataloader_pin_memory": False, "label_names": ["labels"], **settings,
        }
    )  # fmt: skip


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each batch that was cut: how many positions it had before and after."""
    seen: list[tuple[int, int]] = []

    class Watched(SupervisedPlaces):
        def __init__(self, labels: torch.Tensor):
            super().__init__(labels)
            assert self.labels.shape == (1, 1 + int((labels[:, 1:] != -100).sum()))
            seen.append((labels.numel(), self.labels.numel()))

    monkeypatch.setattr(trainer_module, "SupervisedPlaces", Watched)
    monkeypatch.setattr(supervised_logits, "SupervisedPlaces", Watched)
    return seen


def assert_close(found: Gradients, expected: Gradients, tolerance: float) -> None:
    """Relative to the norm of all gradients together, tensor by tensor."""
    assert found.keys() == expected.keys()
    norm = torch.stack([value.double().norm() for value in expected.values()]).norm()
    assert norm > 0
    for name, value in expected.items():
        assert (found[name].double() - value.double()).norm() <= tolerance * norm, name


# ------------------------------------------------------------------ gradients


@pytest.fixture(scope="module")
def zoo_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Model, list[Sample]]]:
    made: dict[str, tuple[Model, list[Sample]]] = {}

    def of(family: str) -> tuple[Model, list[Sample]]:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            folder = samples.write(root / "data")
            answers = ("red", "a square that is deep blue", "say which", "no", "deep blue", "red and red and red")
            rows = [samples.sample(family, folder, number % 3, answer) for number, answer in enumerate(answers)]
            rows = [replace(row, task="ab"[number % 2]) for number, row in enumerate(rows)]
            made[family] = (Model(path=str(zoo.make(family, root / "checkpoint"))), rows)
        return made[family]

    return of


@pytest.mark.parametrize("tasks", [None, TaskWeighting("fixed", {"a": 3.0, "b": 0.25})], ids=["plain", "tasks"])
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_every_class_has_the_gradients_it_had(
    zoo_data: Callable[[str], tuple[Model, list[Sample]]],
    widths: list[tuple[int, int]],
    family: str,
    tasks: TaskWeighting | None,
    tmp_path: Path,
) -> None:
    settings, rows = zoo_data(family)
    collator = Collator(
        loading.load_processor(settings), prefix_attention=loading.family(settings).prefix_attention
    )  # fmt: skip
    found = []
    for switch in (False, True):
        torch.manual_seed(0)
        model = loading.load(settings.model_copy(update={"lora": Lora(dropout=0.0)}))
        gradient = Gradient()
        trainer = InOrder(
            model=model, args=arguments(tmp_path / str(switch)), data_collator=collator, train_dataset=rows,
            coordination=STILL, tasks=tasks, callbacks=[gradient], supervised_logits=switch,
        )  # fmt: skip
        trainer.train()
        found.append((gradient.found, trainer.state.log_history[0]["loss"]))
        assert len(widths) == (3 if switch else 0)  # the first batch is tried before
    assert all(after < before for before, after in widths)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-6)
    assert_close(found[1][0], found[0][0], 1e-6)


def test_task_weighted_gradients_agree_in_float64(checkpoint: Path, tmp_path: Path) -> None:
    found = []
    for switch in (False, True):
        gradient = Gradient()
        trainer = InOrder(
            model=texts.load(str(checkpoint), "float64"),
            args=arguments(tmp_path / str(switch), per_device_train_batch_size=4, gradient_accumulation_steps=4),
            data_collator=Collator(loading.load_processor(Model(path=str(checkpoint)))),
            train_dataset=texts.samples(), coordination=STILL, tasks=WEIGHTS, callbacks=[gradient],
            supervised_logits=switch,
        )  # fmt: skip
        trainer.train()
        found.append(gradient.found)
    assert_close(found[1], found[0], 1e-12)


def test_dropout_draws_the_same_masks(checkpoint: Path, tmp_path: Path) -> None:
    found = []
    for switch in (False, True):
        torch.manual_seed(0)
        gradient = Gradient()
        trainer = InOrder(
            model=loading.load(Model(path=str(checkpoint), lora=Lora(dropout=0.3))), args=arguments(tmp_path),
            data_collator=Collator(loading.load_processor(Model(path=str(checkpoint)))),
            train_dataset=texts.samples(), coordination=STILL, callbacks=[gradient], supervised_logits=switch,
        )  # fmt: skip
        trainer.train()
        found.append(gradient.found)
    assert_close(found[1], found[0], 1e-6)


# ------------------------------------------------------------------ the batch


class Head(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def test_each_kept_position_meets_its_next_label() -> None:
    labels = torch.tensor([[-100, -100, 5, 6, -100, -100], [7, -100, -100, 8, -100, 9]])
    places, head = SupervisedPlaces(labels), Head()
    assert places.labels.tolist() == [[-100, 5, 6, 8, 9]]
    hidden = torch.arange(12.0).view(2, 6, 1)
    with places.kept(head):
        assert head(hidden).flatten().tolist() == [1, 2, 8, 10, 10]
        in_front = torch.cat([torch.full((2, 3, 1), -1.0), hidden], dim=1)  # image tokens
        assert head(in_front).flatten().tolist() == [1, 2, 8, 10, 10]
        with pytest.raises(RecipeError, match=r"given \(2, 5, 1\) for labels \(2, 6\)"):
            head(hidden[:, 1:])
    assert torch.equal(head(hidden), hidden)


def test_a_batch_without_a_supervised_token_keeps_one_position() -> None:
    places, head = SupervisedPlaces(torch.full((2, 4), -100)), Head()
    assert places.labels.tolist() == [[-100]]
    with places.kept(head):
        assert head(torch.ones(2, 4, 3)).shape == (1, 1, 3)


# ------------------------------------------------------------------ when it is off


class Texts(torch.utils.data.Dataset):
    """Six texts of a vocabulary of 20; the second half of each is supervised."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(index, index + 8) % 20
        return {"input_ids": ids, "labels": ids.where(torch.arange(8) >= 4, -100)}


def mixtral(router_losses: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, output_router_logits=router_losses, router_aux_loss_coef=0.5,
    )  # fmt: skip
    return MixtralForCausalLM(config)


def text_trainer(folder: Path, cls: type[Trainer] = InOrder, model: Any = None, **options: Any) -> Trainer:
    settings = options.pop("settings", {})
    ours = {"coordination": STILL} if issubclass(cls, BalancedTrainer) else {}
    model = model if model is not None else mixtral(False)
    return cls(model=model, args=arguments(folder, **settings), train_dataset=Texts(), **ours, **options)


def test_the_balancing_loss_of_experts_is_kept(tmp_path: Path, widths: list[tuple[int, int]]) -> None:
    losses = {}
    for switch in (False, True):
        for routers in (False, True):
            trainer = text_trainer(tmp_path, model=mixtral(routers), supervised_logits=switch)
            trainer.train()
            losses[switch, routers] = trainer.state.log_history[0]["loss"]
    assert len(widths) == 6
    assert losses[False, True] > losses[False, False] + 0.1
    assert losses[True, False] == pytest.approx(losses[False, False], rel=1e-6)
    assert losses[True, True] == pytest.approx(losses[False, True], rel=1e-6)


def test_it_is_off_where_the_trainer_has_a_loss_of_its_own(tmp_path: Path, widths: list[tuple[int, int]]) -> None:
    def theirs(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        assert outputs.logits.shape[1] == labels.shape[1] == 8
        return outputs.logits.square().mean()

    text_trainer(tmp_path, compute_loss_func=theirs).train()
    text_trainer(tmp_path, settings={"label_smoothing_factor": 0.1}).train()
    assert widths == []


def test_evaluation_sees_all_logits(tmp_path: Path, widths: list[tuple[int, int]]) -> None:
    trainer = text_trainer(tmp_path, eval_dataset=Texts())
    assert trainer.predict(Texts()).predictions.shape == (6, 8, 20)
    trainer.evaluate()
    assert widths == []


def test_attach_cuts_batches_only_for_trainers_with_transformers_loss(
    tmp_path: Path, widths: list[tuple[int, int]]
) -> None:
    class Theirs(PlainInOrder):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            assert inputs["labels"].shape[1] == 8
            return super().compute_loss(model, inputs, *args, **kwargs)

    attach(text_trainer(tmp_path, Theirs), STILL).train()
    attach(text_trainer(tmp_path, PlainInOrder), STILL, supervised_logits=False).train()
    assert widths == []
    attach(text_trainer(tmp_path, PlainInOrder), STILL).train()
    assert widths == [(24, 13)] * 3  # one of them a trial


class ReadsLabels(MixtralForCausalLM):
    """A forward that needs the labels for something else too."""

    def forward(self, input_ids: Any = None, labels: Any = None, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
        mask = labels != -100
        return super().forward(input_ids, attention_mask=torch.ones_like(mask), labels=labels, **kwargs)


class ScoresOtherwise(MixtralForCausalLM):
    def forward(self, input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        logits = self.lm_head(self.model(input_ids).last_hidden_state)
        return CausalLMOutput(loss=logits.square().sum() / labels.shape[1], logits=logits)


@pytest.mark.parametrize("cls", [ReadsLabels, ScoresOtherwise])
def test_a_model_whose_loss_would_be_another_trains_as_it_did(
    cls: type[PreTrainedModel], tmp_path: Path, widths: list[tuple[int, int]]
) -> None:
    found = []
    for switch in (False, True):
        torch.manual_seed(0)
        gradient = Gradient()
        model = cls(mixtral(False).config)
        text_trainer(tmp_path, model=model, supervised_logits=switch, callbacks=[gradient]).train()
        found.append(gradient.found)
    assert len(widths) == 1  # tried, and never again
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_batch_that_supervises_nothing_decides_nothing() -> None:
    batch = {"input_ids": torch.arange(8)[None], "labels": torch.full((1, 8), -100)}
    forwards: list[tuple[int, ...]] = []

    def loss(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        forwards.append(tuple(inputs["labels"].shape))
        return model(**inputs).loss

    assert supervised_logits.agree(mixtral(False), batch, loss) is None
    assert forwards == [(1, 8), (1, 1)]  # as on a process whose batch decides, which would wait for them


def test_the_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    model = mixtral(False).train()
    norm = model.add_module("norm", nn.BatchNorm1d(8)) or model.norm
    batch = {"input_ids": torch.arange(8)[None], "labels": torch.arange(8)[None]}
    state = torch.get_rng_state()

    def loss(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        model.norm(torch.rand(4, 8))
        return model(**inputs).loss

    assert supervised_logits.agree(model, batch, loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert norm.num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_prompt_tuning_puts_tokens_in_front_and_is_left_alone(tmp_path: Path, widths: list[tuple[int, int]]) -> None:
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    division = {"llm": "prompt_encoder"}
    model = peft.get_peft_model(mixtral(False), config)
    text_trainer(tmp_path, model=model, modules=division).train()
    assert widths == []
