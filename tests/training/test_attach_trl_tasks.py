"""Task weights in trl's SFTTrainer: eq. 2 over the whole optimizer step, from a fused head that gives no logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor, AutoTokenizer, MixtralConfig, MixtralForCausalLM
from trl import DPOConfig, DPOTrainer, SFTTrainer

from equipoise import Coordination, TaskWeighting, attach
from equipoise.errors import DataError, RecipeError
from equipoise.training.run_directory import RunDirectory
from equipoise.training.task_weighting import TaskCollator, require_weightable
from training import _task_gradients as step
from training import _trl_step as trl_step
from training._trl_step import PLAIN, WEIGHTS, gradients, rows

Gradients = dict[str, torch.Tensor]
UNEQUAL = TaskWeighting("fixed", weights=WEIGHTS)
EQUAL = TaskWeighting("ew")
FREE = {"padding_free": True, "max_length": None}


@pytest.fixture
def make_sft(checkpoint: Path, tmp_path: Path) -> Callable[..., SFTTrainer]:
    def make(kind: str = "prompt", **options: Any) -> SFTTrainer:
        data = options.pop("data", None) or Dataset.from_list(rows(kind))
        return trl_step.sft(checkpoint, tmp_path, data, **options)

    return make


def by_hand(checkpoint: Path, kind: str, completion_only: bool = True) -> tuple[float, dict[str, int], Gradients]:
    """Eq. 2, one sample at a time, with nothing of trl or of the code under test."""
    model = step.load(str(checkpoint), "float32").train()
    processor = AutoProcessor.from_pretrained(checkpoint)
    words, end = processor.tokenizer, processor.tokenizer.eos_token
    losses: dict[str, Any] = {}
    tokens: dict[str, int] = {}
    for row in rows(kind):
        pixels = {}
        if kind == "images":
            encoded = processor(images=row["images"], text=row["prompt"], return_tensors="pt")
            pixels = {"pixel_values": encoded["pixel_values"]}
            prompt = encoded["input_ids"][0].tolist()
            answer = words(row["completion"])["input_ids"]  # trl ends no standard text that comes with images
        else:
            prompt = words(row["prompt"])["input_ids"] if kind == "prompt" else []
            answer = words(row["text" if kind == "text" else "completion"] + end)["input_ids"]
        ids = prompt + answer
        log_probs = model(input_ids=torch.tensor([ids]), **pixels).logits[0].log_softmax(-1)
        for place in range(max(1, len(prompt) if completion_only else 1), len(ids)):
            losses[row["task"]] = losses.get(row["task"], 0) - log_probs[place - 1, ids[place]]
            tokens[row["task"]] = tokens.get(row["task"], 0) + 1
    loss = sum(WEIGHTS[t] * losses[t] for t in tokens) / sum(WEIGHTS[t] * tokens[t] for t in tokens)
    loss.backward()
    return loss.item(), tokens, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_close(found: Gradients, expected: Gradients, relative: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= relative * value.norm(), name


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("text", {}),
        ("prompt", {}),
        ("images", {}),
        ("prompt", {"completion_only_loss": False}),
        ("prompt", FREE),
        ("text", FREE),
        ("prompt", {**FREE, "pad_to_multiple_of": 64}),
        ("prompt", {"gradient_checkpointing": False}),
        ("prompt", {"average_tokens_across_devices": False}),
    ],
    ids=str,
)
def test_a_step_is_eq_2_however_it_is_cut(checkpoint, make_sft, kind, options):
    loss, tokens, expected = by_hand(checkpoint, kind, options.get("completion_only_loss", True))
    for batch, accumulation in ((16, 1), (4, 4), (1, 16)):
        cut = {"batch": batch, "accumulation": accumulation}
        trainer = attach(make_sft(kind, **cut, **options), PLAIN, tasks=UNEQUAL)
        assert_close(gradients(trainer), expected, 1e-5)
        logged = trainer.state.log_history[0]
        assert logged["loss"] == pytest.approx(loss, rel=1e-5)
        assert {task: logged[f"task_tokens/{task}"] for task in tokens} == tokens
        weighted = sum(WEIGHTS[task] * count * logged[f"task_loss/{task}"] for task, count in tokens.items())
        assert weighted / sum(WEIGHTS[task] * count for task, count in tokens.items()) == pytest.approx(loss, rel=1e-5)
        assert "mean_token_accuracy" in logged  # what trl logs is still there


@pytest.mark.parametrize("average", [True, False])
def test_two_processes_make_the_step_of_one(checkpoint, tmp_path, group, average):
    _, _, expected = by_hand(checkpoint, "prompt")
    group(2, trl_step.__name__, checkpoint, tmp_path, 2, 4, json.dumps({"average_tokens_across_devices": average}))
    one, other = (torch.load(file, weights_only=True) for file in sorted(tmp_path.glob("rank-*-of-2.pt")))
    assert all(torch.equal(other[name], value) for name, value in one.items())
    assert_close(one, expected, 1e-5)


def mixtral(checkpoint: Path) -> dict[str, Any]:
    """A mixture of experts with a load-balancing loss that weighs something."""
    words = AutoTokenizer.from_pretrained(checkpoint)
    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_local_experts=4, vocab_size=len(words), output_router_logits=True, router_aux_loss_coef=0.5,
        eos_token_id=words.eos_token_id,
    )  # fmt: skip
    return {"model": MixtralForCausalLM(config), "processing_class": words}


@pytest.mark.parametrize("kind", ["text", "prompt", "images", "padding-free", "experts"])
def test_equal_weights_are_trls_own_loss(checkpoint, make_sft, kind):
    def make() -> SFTTrainer:
        options = {"padding-free": FREE, "experts": mixtral(checkpoint) if kind == "experts" else {}}
        return make_sft(kind if kind in ("text", "images") else "prompt", **options.get(kind, {}))

    own = gradients(make())
    assert_close(gradients(attach(make(), PLAIN, tasks=EQUAL)), own, 1e-6)


def test_a_model_that_takes_no_number_of_tokens_is_not_divided_twice(checkpoint, make_sft):
    trainer = make_sft()
    trainer.model_accepts_loss_kwargs = False  # as Trainer finds of Idefics or Qwen-VL
    _, _, expected = by_hand(checkpoint, "prompt")
    assert_close(gradients(attach(trainer, PLAIN, tasks=UNEQUAL)), expected, 1e-5)


@pytest.mark.parametrize("options", [{}, FREE], ids=["padded", "padding-free"])
def test_fractional_weights_change_the_gradients_and_a_common_factor_does_not(make_sft, options):
    weights = {"a": 1.0, "b": 0.5, "c": 1.0}
    half, seven, equal = (
        gradients(attach(make_sft(**options), PLAIN, tasks=tasks))
        for tasks in (
            TaskWeighting("fixed", weights=weights),
            TaskWeighting("fixed", weights={task: 7 * weight for task, weight in weights.items()}),
            EQUAL,
        )
    )
    for name, value in equal.items():  # in direction, which no common factor changes
        assert (half[name] / half[name].norm() - value / value.norm()).norm() > 1e-3, name
    assert_close(seven, half, 1e-6)


def test_the_fused_head_still_gives_no_logits(make_sft):
    trainer = attach(make_sft(), PLAIN, tasks=UNEQUAL)
    seen = []
    trainer.model.register_forward_hook(lambda *call: seen.append(call[-1]))
    trainer.train()
    assert len(seen) == 4  # a forward a micro-batch
    assert not any(hasattr(output, "logits") for output in seen)


def test_both_balances_at_once(make_sft):
    trainer = attach(make_sft("images"), Coordination("commit", every=1, samples=4), tasks=TaskWeighting("tla"))
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["kappa"] > 0
    assert {key for key in logged if key.startswith("task_kappa/")} <= {f"task_kappa/{task}" for task in "abc"}
    assert any(key.startswith("task_kappa/") for key in logged)
    assert logged["task_weight/c"] > logged["task_weight/b"]


def test_modules_are_measured_on_rows_of_several_samples_too(make_sft):
    trainer = attach(make_sft(**FREE), Coordination("constant", every=1), tasks=UNEQUAL)
    trainer.train()
    assert trainer.state.log_history[0]["drift/llm"] > 0


def test_what_is_evaluated_needs_no_task_and_is_not_weighted(make_sft, tmp_path):
    plain = [{name: value for name, value in row.items() if name != "task"} for row in rows("prompt")]
    trainer = make_sft(eval_dataset=Dataset.from_list(plain), eval_strategy="steps", eval_steps=1)
    before = trainer.evaluate()["eval_loss"]
    attach(trainer, PLAIN, tasks=UNEQUAL)
    assert trainer.evaluate()["eval_loss"] == before
    trainer.train()
    [during] = [line["validation_loss"] for line in RunDirectory(tmp_path).metrics() if "validation_loss" in line]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(during, rel=1e-6)  # after the logs are closed


# ------------------------------------------------------------------ what cannot be weighted


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"packing": True, "max_length": 64}, "found packing=True, .* need packing=False"),
        ({"loss_type": "dft"}, "found loss_type='dft'; .* set loss_type='nll'"),
        ({"label_smoothing_factor": 0.1}, "has a label_smoothing_factor of its own: leave it out"),
        ({"compute_loss_func": lambda *_, **__: None}, "has a compute_loss_func of its own: leave it out"),
    ],
    ids=["packing", "dft", "smoothing", "compute_loss_func"],
)
@pytest.mark.filterwarnings("ignore:`(label_smoothing_factor|compute_loss_func)` is deprecated:FutureWarning")
def test_what_cannot_be_weighted_is_refused_and_the_trainer_left_alone(make_sft, options, reason):
    trainer = make_sft(**options)
    collator, function = trainer.data_collator, trainer.compute_loss_func
    with pytest.raises(RecipeError, match=f"^[^\n]*{reason}[^\n]*$"):
        attach(trainer, PLAIN, tasks=UNEQUAL)
    assert type(trainer) is SFTTrainer
    assert (trainer.data_collator, trainer.compute_loss_func) == (collator, function)


def test_processes_that_share_a_batch_are_refused():
    parallel = SimpleNamespace(non_data_parallel_size=2)
    with pytest.raises(RecipeError, match="found 2 processes to a batch"):
        require_weightable(SimpleNamespace(accelerator=SimpleNamespace(parallelism_config=parallel)))


class OwnLoss(SFTTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).loss


def test_a_trainer_that_would_ignore_the_weights_is_stopped_before_its_first_step(checkpoint, make_sft, tmp_path):
    trainer = attach(make_sft(cls=OwnLoss), PLAIN, tasks=UNEQUAL)
    with pytest.raises(RecipeError, match="uses no compute_loss_func, so that task weights would do nothing"):
        trainer.train()
    assert trainer.state.global_step == 0
    pairs = [{**row, "chosen": row["completion"], "rejected": " blue"} for row in rows("prompt")]
    preferences = DPOTrainer(
        model=step.load(str(checkpoint), "float32"),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
        train_dataset=Dataset.from_list(pairs).remove_columns("completion"),
        args=DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True),
    )
    with pytest.raises(DataError, match="task weights need batches with labels and task_ids; found input_ids"):
        attach(preferences, PLAIN, tasks=UNEQUAL).train()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda made: made.remove_columns("task"), "a sample has no task"),
        (lambda made: made.add_column("number", [1] * 16).remove_columns("task").rename_column("number", "task"),
         r"a sample has no task \(found 1\)"),
        (lambda made: made.to_iterable_dataset(), r"found a streamed training set \(IterableDataset\)"),
    ],
    ids=["absent", "numbers", "streamed"],
)  # fmt: skip
def test_tasks_must_be_known_and_have_names(make_sft, data, reason):
    with pytest.raises(DataError, match=f"^{reason}"):
        attach(make_sft(data=data(Dataset.from_list(rows("prompt")))), PLAIN, tasks=UNEQUAL)


def test_a_training_sample_that_lost_its_task_stops_the_run(make_sft):
    trainer = attach(make_sft(), PLAIN, tasks=UNEQUAL)
    trainer.train_dataset = trainer.train_dataset.remove_columns("task")
    with pytest.raises(DataError, match="a sample has no task, or one that training began without; allowed: a, b, c"):
        trainer.train()


def test_rows_of_several_samples_have_a_task_for_each_token():
    def end_to_end(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [token for sample in samples for token in sample["input_ids"]]
        return {"labels": torch.tensor([[*ids, -100]])}

    samples = [{"input_ids": [5, 6], "task": "b"}, {"input_ids": [], "task": "a"}, {"input_ids": [7], "task": "z"}]
    collate = TaskCollator(end_to_end, ["a", "b"])
    assert collate(samples)["task_ids"].tolist() == [[1, 1, -1, -1]]
    with pytest.raises(DataError, match=r"made 2 rows \(2, 4\) of 3 samples; allowed are a row for each, or all"):
        TaskCollator(lambda _: {"labels": torch.zeros(2, 4)}, ["a", "b"])(samples)
