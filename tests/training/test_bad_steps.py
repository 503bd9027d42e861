"""Steps whose numbers are not finite, or that supervise nothing, in a Trainer: left out, counted, said, survived."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from equipoise import BalancedTrainer, Coordination, TaskWeighting, attach
from equipoise.errors import DivergenceError
from equipoise.modules.step_guard import LIMIT
from equipoise.training.task_weighting import TaskBalance
from training import _bad_batches as bad
from training import _bad_rank
from training._compare import learning, same
from training.poisoned_runs import poisoned

COMMIT = Coordination("commit", every=1, samples=4, window=3)
GRADIENTS = "the gradients of projector, llm are not finite"


@pytest.fixture
def make(checkpoint: Path, dataset: Path, tmp_path: Path) -> Any:
    def made(cls: type[Trainer] = bad.Following, name: str = "out", **options: Any) -> Any:
        if issubclass(cls, BalancedTrainer):
            options.setdefault("coordination", COMMIT)
        return bad.make(cls, checkpoint, dataset, tmp_path / name, **options)

    return made


# ------------------------------------------------------------------------------------------ gradients gone bad


@pytest.mark.parametrize(("how", "parts"), [(bad.nan_pixel, (1,)), (bad.infinite_pixels, (0, 1))])
def test_a_step_with_a_gradient_that_is_not_finite_is_not_made(make, caplog, how, parts):
    trainer = make(spoil={3: how, 6: how}, parts=parts)
    trainer.train()
    lines = bad.strict_lines(Path(trainer.args.output_dir))
    assert [line["step"] for line in lines if "skipped_because" in line] == [3, 6]
    assert same(trainer.after[2], trainer.after[1])
    assert same(trainer.after[5], trainer.after[4])
    assert not same(trainer.after[3], trainer.after[2])
    assert bad.finite(learning(trainer))
    for number, line in enumerate((lines[2], lines[5]), 1):
        assert line["skipped_because"] == GRADIENTS
        assert line["steps_skipped"] == number
        assert line["loss"] is line["grad_norm/llm"] is None
        assert line["not_finite"]["loss"] == "nan"
        assert "kappa" not in line
    for line in lines[:2] + lines[3:5] + lines[6:]:
        assert math.isfinite(line["loss"])
        assert line["kappa_average"] > 0
        assert "steps_skipped" not in line
        assert "not_finite" not in line
    said = [record.message for record in caplog.records if record.name.startswith("equipoise")]
    assert [words for words in said if "not made" in words] == [
        f"step 3 is not made: {GRADIENTS}; such steps are left out and counted"
    ]


def test_a_sample_of_the_harness(tmp_path):
    """Every run is whole; of transformers' own Trainer, the one whose batch supervises nothing."""
    assert poisoned(tmp_path, 4, ("commit-clr",), ("igbv1",)) == {
        "runs": 3, "whole": 3, "spoilt": 3, "made": 0, "others left out": 0, "plain runs": 3, "plain whole": 1,
    }  # fmt: skip


def test_an_attached_trainer_is_guarded_too(make):
    trainer = attach(make(Trainer, spoil={3: bad.nan_pixel}), COMMIT)
    trainer.train()
    assert bad.finite(learning(trainer))
    assert [line["step"] for line in bad.strict_lines(Path(trainer.args.output_dir)) if "steps_skipped" in line] == [3]


@pytest.mark.parametrize(
    "coordination",
    [
        Coordination("commit", estimator="exact", regulariser_cap=None, window=3),
        Coordination("commit-clr", controller="servo", estimator="lookback", window=3),
        Coordination("commit-clr", estimator="sampled", every=1, samples=2, window=3),
    ],
    ids=lambda c: f"{c.schedule} {c.estimator}",
)
def test_one_bad_step_leaves_no_trace_in_the_state(make, coordination):
    """The state after it holds finite numbers alone, and the measurements of the other steps."""
    trainer = make(spoil={3: bad.nan_pixel}, coordination=coordination, steps=7)
    trainer.train()
    state = trainer.coordinator.state_dict()
    assert bad.sound(state)
    for step, drifts in state["window"]["measurements"]:
        assert step != 3  # that of the bad step
        assert step != 2 or coordination.estimator != "lookback"  # which the bad batch would have shown
        assert all(drift > 0 for drift in drifts.values())
    assert trainer.coordinator.estimator == coordination.estimator
    for line in bad.strict_lines(Path(trainer.args.output_dir))[3:]:
        assert all(0 <= value <= 2 for key, value in line.items() if key.startswith("lr_factor/"))


def test_the_losses_after_a_bad_step_are_in_trainers_log(make):
    """Trainer empties its sum of losses by subtracting it from itself: nan would stay in it for ever."""
    trainer = make(spoil={3: bad.nan_pixel}, steps=5)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    lines = bad.strict_lines(Path(trainer.args.output_dir))
    assert math.isnan(history[2]["loss"])
    for place in (0, 1, 3, 4):
        assert history[place]["loss"] == pytest.approx(lines[place]["loss"], abs=1e-3)
    assert ["grad_norm" in entry for entry in history] == [True, True, False, True, True]
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])
    # The optimizer's own count and moments are those of the steps that were made.
    counts = {int(state["step"]) for state in trainer.optimizer.optimizer.state.values()}
    assert counts == {4}
    assert all(torch.isfinite(state["exp_avg_sq"]).all() for state in trainer.optimizer.optimizer.state.values())


def test_an_infinite_loss_with_finite_gradients_is_logged_and_the_step_made(make):
    class Offset(bad.Following):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(*args, **kwargs) + (math.inf if self.state.global_step == 1 else 0.0)

    trainer = make(Offset, spoil={}, steps=3, coordination=Coordination("constant", measure=False))
    trainer.train()
    lines = bad.strict_lines(Path(trainer.args.output_dir))
    assert lines[1]["loss"] is None
    assert lines[1]["not_finite"] == {"loss": "inf"}
    assert not any("steps_skipped" in line for line in lines)
    assert not same(trainer.after[1], trainer.after[0])


# ------------------------------------------------------------------------------------------ runs that end


def test_a_run_of_bad_steps_ends_with_a_line_that_names_the_checkpoint(make):
    spoil = dict.fromkeys(range(4, 40), bad.nan_pixel)
    trainer = make(spoil=spoil, steps=40, arguments={"save_strategy": "steps", "save_steps": 3})
    with pytest.raises(DivergenceError) as error:
        trainer.train()
    last = 3 + LIMIT
    folder = Path(trainer.args.output_dir)
    message = str(error.value)
    assert message.startswith(f"training ended at step {last}: {LIMIT} steps in a row, from step 4, were not made: ")
    assert GRADIENTS in message
    assert "lower learning rate" in message
    assert str(folder / "checkpoint-12") in message
    assert "\n" not in message
    lines = bad.strict_lines(folder)
    assert lines.pop() == {"step": last, "ended": message.partition(": ")[2].partition(" (the last")[0]}
    assert lines[-1]["step"] == last  # the log tells the whole story
    assert lines[-1]["steps_skipped"] == LIMIT
    assert same(trainer.after[-1], trainer.after[2])


def test_weights_that_overflow_end_the_run_and_enter_no_checkpoint(make):
    """A step whose gradients are finite, at a rate that no float32 holds."""
    trainer = make(
        spoil={}, coordination=Coordination("constant", measure=False),
        arguments={
            "learning_rate": 1e38, "warmup_steps": 1, "lr_scheduler_type": "constant_with_warmup",
            "save_strategy": "steps", "save_steps": 1,
        },
    )  # fmt: skip
    with pytest.raises(DivergenceError, match="not finite") as error:
        trainer.train()
    checkpoints = sorted(Path(trainer.args.output_dir).glob("checkpoint-*"))
    assert [folder.name for folder in checkpoints] == ["checkpoint-1"]
    assert f"whose weights are finite, is {checkpoints[0]}" in str(error.value)


def test_weights_that_overflow_in_the_last_step_end_the_run_too(make):
    trainer = make(
        spoil={}, steps=1, coordination=Coordination("constant", measure=False), arguments={"learning_rate": 1e38}
    )
    with pytest.raises(DivergenceError, match="training ended at step 1: the weights of "):
        trainer.train()


# ------------------------------------------------------------------------------------------ nothing supervised


@pytest.mark.parametrize("attached", [False, True])
def test_a_step_that_supervises_nothing_is_not_made(make, attached):
    if attached:
        trainer = attach(make(Trainer, spoil={3: bad.nothing_supervised}), COMMIT)
    else:
        trainer = make(spoil={3: bad.nothing_supervised})
    trainer.train()
    lines = bad.strict_lines(Path(trainer.args.output_dir))
    assert lines[2]["loss"] == lines[2]["grad_norm/llm"] == 0
    assert lines[2]["skipped_because"] == "no token was supervised"
    assert lines[2]["steps_skipped"] == 1
    assert [line["step"] for line in lines if "steps_skipped" in line] == [3]
    if not attached:
        assert same(trainer.after[2], trainer.after[1])
    assert bad.finite(learning(trainer))


def test_a_micro_batch_that_supervises_nothing_is_as_if_it_were_not_there(make):
    trainer = make(spoil={3: bad.nothing_supervised}, parts=(0,))
    trainer.train()
    lines = bad.strict_lines(Path(trainer.args.output_dir))
    assert not any("steps_skipped" in line or "not_finite" in line for line in lines)
    assert all(line["loss"] > 0 for line in lines)


def test_a_run_that_supervises_nothing_ends_and_says_so(make):
    trainer = make(spoil=dict.fromkeys(range(1, 99), bad.nothing_supervised), steps=99)
    with pytest.raises(DivergenceError, match=f"{LIMIT} steps in a row.*no token was supervised; look at the labels"):
        trainer.train()


def test_a_models_own_mean_over_no_token_is_not_a_bad_number(make):
    """A model that takes no number of tokens has the loss 0 / 0 of a micro-batch without labels."""

    class Plain(bad.Following):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.model_accepts_loss_kwargs, self.compute_loss_func = False, None

    trainer = make(Plain, spoil={2: bad.nothing_supervised, 4: bad.nothing_supervised}, parts=(1,), steps=5)
    trainer.train()
    lines = bad.strict_lines(Path(trainer.args.output_dir))
    assert all(line["loss"] > 0 for line in lines)
    assert not any("steps_skipped" in line for line in lines)


# ------------------------------------------------------------------------------------------ tasks


def test_a_bad_step_enters_no_weighters_state(make, dataset):
    """A step whose losses are finite, and one gradient is not."""
    trainer = make(spoil={}, samples=bad.two_tasks(dataset), tasks=TaskWeighting("dwa", window=3), steps=6)
    weight = next(parameter for _, parameter in trainer.division.parameters())
    weight.register_hook(lambda gradient: gradient * (math.nan if trainer.state.global_step == 2 else 1.0))
    trainer.train()
    lines = bad.strict_lines(Path(trainer.args.output_dir))
    assert lines[2]["skipped_because"] == "the gradients of projector are not finite"
    assert math.isfinite(lines[2]["loss"])
    assert bad.sound(trainer._tasks.state_dict())
    for line in lines:
        assert all(value > 0 for key, value in line.items() if key.startswith("task_weight/"))
    # The losses of the steps that were made and held the task.
    for name, kept in zip(trainer._tasks.names, trainer._tasks.state_dict()["weighter"]["losses"], strict=True):
        made = [line[f"task_loss/{name}"] for n, line in enumerate(lines) if n != 2 and f"task_loss/{name}" in line]
        assert kept == made


def test_a_finite_loss_of_a_step_that_is_not_made_is_logged_and_kept_from_the_weighter():
    balance = TaskBalance(TaskWeighting("dwa", window=2), ["a"], None)
    batch = {"labels": torch.tensor([[-100, 1, 2]]), "task_ids": torch.tensor([0])}
    for made, kept in ((True, 1), (False, 1), (True, 2)):
        tokens = balance.begin_step([batch], lambda count: count)
        with balance.training_on(batch["task_ids"]):
            balance.loss(torch.zeros(1, 3, 5), batch["labels"], tokens)
        assert balance.end_step(lambda losses: losses, made=made)["task_loss/a"] == pytest.approx(math.log(5))
        assert len(balance.state_dict()["weighter"]["losses"][0]) == kept


# ------------------------------------------------------------------------------------------ the best model


def test_a_metric_that_is_not_finite_is_never_the_best(make, caplog):
    class Scored(bad.Following):
        found = itertools.chain((math.nan, 2.0, -math.inf, 1.0, math.nan), itertools.repeat(3.0))

        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            return {"eval_loss": next(self.found)}

    trainer = make(
        Scored, spoil={}, steps=6, eval_dataset=[None],
        arguments={
            "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
            "load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False,
        },
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_metric == 1.0
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")
    assert same(learning(trainer), trainer.after[3])
    assert sum("which no best model is chosen by" in record.message for record in caplog.records) == 3


# ------------------------------------------------------------------------------------------ processes


@pytest.mark.slow
def test_a_number_gone_bad_in_one_process_is_the_same_to_all(checkpoint, dataset, tmp_path, group):
    """Its step is made in neither; a step that supervises nothing in one process is made in both."""
    printed = group(2, _bad_rank.__name__, checkpoint, dataset, tmp_path)
    one, other = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert same(one, other)
    assert bad.finite(one)
    states = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert states[0] == states[1]
    lines = bad.strict_lines(tmp_path / "log")
    assert [line["step"] for line in lines if "skipped_because" in line] == [2]
    assert printed.count("is not made") == 1
