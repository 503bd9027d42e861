"""SIGTERM while a model trains: its step is finished and has a checkpoint, and `--resume` makes the same run of it."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from equipoise.recipe import Recipe
from equipoise.stopping import Stopped, stoppable
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from equipoise.training.trainer import BalancedTrainer
from training._compare import same, weights

MakeRecipe = Callable[..., Recipe]
STEPS = 6


def silent() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def undisturbed(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(make_recipe({"schedule": "commit"}), tmp_path_factory.mktemp("undisturbed") / "run", silent())


@pytest.fixture
def term_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """A signal in the middle of a step, counted from 1 within the process."""

    def arrange(wanted: int, where: str = "training_step") -> None:
        seen, method = 0, getattr(BalancedTrainer, where)

        def signalled(trainer: BalancedTrainer, *args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == wanted:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
            return method(trainer, *args, **kwargs)

        monkeypatch.setattr(BalancedTrainer, where, signalled)

    return arrange


def test_a_step_in_hand_is_finished_and_kept(
    make_recipe: MakeRecipe, undisturbed: RunDirectory, tmp_path: Path, term_in: Callable[..., None]
) -> None:
    recipe, run = make_recipe({"schedule": "commit"}), RunDirectory(tmp_path / "run")
    term_in(5)  # two micro-batches a step: in the middle of the third
    stopped = rf"^stopped after step 3 of {STEPS}, of which there is a checkpoint in .*run$"
    with pytest.raises(Stopped, match=stopped), stoppable():
        train(recipe, run.path, silent())
    assert json.loads(run.stopped_file.read_text(encoding="utf-8")) == {
        "step": 3, "steps": STEPS, "checkpoint": "checkpoints/checkpoint-3",
    }  # fmt: skip
    assert run.newest_checkpoint() == run.checkpoints / "checkpoint-3"
    assert not run.done
    assert not run.model.exists()
    train(recipe, run.path, silent(), resume=True)
    assert not run.stopped_file.exists()
    assert run.metrics_file.read_bytes() == undisturbed.metrics_file.read_bytes()
    assert same(weights(run.model), weights(undisturbed.model))
    state = json.loads((run.checkpoints / "checkpoint-3" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"] is False


def test_in_the_last_step_the_run_is_finished(
    make_recipe: MakeRecipe, undisturbed: RunDirectory, tmp_path: Path, term_in: Callable[..., None]
) -> None:
    term_in(2 * STEPS)
    with stoppable():
        run = train(make_recipe({"schedule": "commit"}), tmp_path / "run", silent())
        with pytest.raises(Stopped):  # and nothing more is begun
            train(make_recipe({"schedule": "commit"}), tmp_path / "next", silent())
    assert run.done
    assert not run.stopped_file.exists()
    assert not (tmp_path / "next").exists()
    assert same(weights(run.model), weights(undisturbed.model))


def test_before_the_first_step_it_ends_at_once(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        pytest.fail("went on")

    monkeypatch.setattr("equipoise.training.run.load_to_train", load)
    with pytest.raises(Stopped, match=r"^stopped$"), stoppable():
        train(make_recipe({"schedule": "commit"}), tmp_path / "run", silent())
    assert not list((tmp_path / "run").glob("*.jsonl"))
    assert not list((tmp_path / "run" / ".locks").glob("*.owner"))


def test_a_worker_that_dies_of_the_signal_is_no_failure(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")

    monkeypatch.setattr(BalancedTrainer, "get_batch_samples", fetch)
    with pytest.raises(Stopped, match=r"^stopped within step 1$"), stoppable():
        train(make_recipe({"schedule": "constant"}), tmp_path / "run", silent())
