"""kill -9, then --resume, as often as it takes: the log and the weights of a run that was never disturbed, bit for bit.

Everything goes through the command line in processes of their own. A kill hits either when the log has some lines
(from outside, as a scheduler would), or at one exact file operation.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.data.tasks import read_mixture
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from training import _checkpoint as tiny
from training._compare import same, weights

Command = Callable[..., dict[str, Any]]
VARIANTS: dict[str, dict[str, Any]] = {
    "commit": {"schedule": "commit"},
    "look-back": {"schedule": "commit", "estimator": "lookback"},
    "feature-cd": {"schedule": "feature-cd"},
}
STEPS = 8  # of six steps an epoch, so that the end lies within one


class Case:
    """One recipe: its file, an undisturbed run of it, and a folder to disturb another in."""

    def __init__(self, command: Command, recipe: Path, undisturbed: RunDirectory, folder: Path):
        self.command = command
        self.recipe = recipe
        self.undisturbed = undisturbed
        self.run = RunDirectory(folder)

    def train(self, resume: bool = False, **disturbance: Any) -> dict[str, Any]:
        return self.command(
            "train", self.recipe, "--out", self.run.path, *(["--resume"] if resume else []), **disturbance
        )

    def die(self, moment: str, resume: bool = False) -> None:
        """Run until the process kills itself at a file operation: part of a path, an event and a colon before it."""
        event, _, part = moment.rpartition(":")
        died = self.train(resume, kill=[event, part, 1])
        assert died["status"] == -signal.SIGKILL, died["printed"]

    def kill_after(self, lines: int, resume: bool = False) -> None:
        """Run until the log has so many lines, then kill."""
        died = self.train(resume, signal_after=[str(self.run.path), lines, signal.SIGKILL])
        assert died["status"] == -signal.SIGKILL, died["printed"]
        assert not self.run.done

    @property
    def lines(self) -> int:
        return self.run.metrics_file.read_bytes().count(b"\n")

    def resume(self) -> None:
        """Run to the end."""
        ended = self.train(resume=True)
        assert ended["status"] == 0, ended["printed"]

    def assert_as_undisturbed(self) -> None:
        assert self.run.done
        assert self.run.metrics_file.read_bytes() == self.undisturbed.metrics_file.read_bytes()
        assert same(weights(self.run.model), weights(self.undisturbed.model))
        assert [line["step"] for line in self.run.timings()] == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def make_case(
    checkpoint: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory, command: Command
) -> Callable[[str], Case]:
    undisturbed: dict[str, tuple[Path, RunDirectory]] = {}

    def make(variant: str) -> Case:
        folder = tmp_path_factory.mktemp("case")
        if variant not in undisturbed:
            content = tiny.settings(checkpoint, dataset, VARIANTS[variant], max_steps=STEPS, save_steps=2, seed=3)
            recipe = tiny.write_recipe(folder / "recipe.yaml", content)
            run = train(load_recipe(recipe), folder / "undisturbed", Console(file=io.StringIO()))
            undisturbed[variant] = recipe, run
        return Case(command, *undisturbed[variant], folder / "disturbed")

    return make


def test_killed_before_the_first_checkpoint_and_in_the_middle(make_case: Callable[[str], Case]) -> None:
    case = make_case("commit")
    case.kill_after(lines=1)
    assert case.run.newest_checkpoint() is None
    case.kill_after(lines=5, resume=True)
    case.resume()
    case.assert_as_undisturbed()


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_while_a_checkpoint_is_written_twice(make_case: Callable[[str], Case], variant: str) -> None:
    case = make_case(variant)
    # All of the checkpoint is there but its last file; then the same checkpoint again, at its beginning.
    case.die("checkpoint-4/trainer_state.json")
    torn = case.run.checkpoints / "checkpoint-4"
    assert (torn / "balance_state.pt").is_file()
    assert case.run.newest_checkpoint() == case.run.checkpoints / "checkpoint-2"
    case.die("checkpoint-6/adapter_config.json", resume=True)
    assert case.lines == 6
    assert case.run.newest_checkpoint() == case.run.checkpoints / "checkpoint-4"
    case.resume()
    case.assert_as_undisturbed()


def test_killed_after_the_last_checkpoint(make_case: Callable[[str], Case]) -> None:
    """In this process: the kill left neither the model nor done.json."""
    case = make_case("commit")
    shutil.copytree(case.undisturbed.path, case.run.path)
    shutil.rmtree(case.run.model)
    case.run.done_file.unlink()
    train(load_recipe(case.recipe), case.run.path, Console(file=io.StringIO()), resume=True)
    case.assert_as_undisturbed()


MIXTURES: dict[str, dict[str, Any]] = {
    "every modality, by length": {"batches": "every-modality", "group_by_length": True},
    "one modality": {"batches": "one-modality"},
    "by weight": {"order": "weight"},
    "shuffled": {},
}


@pytest.fixture
def mixed(checkpoint: Path, tmp_path: Path) -> Callable[[str], Recipe]:
    """A recipe of ten steps, six an epoch, half of whose samples are text alone, of several lengths."""
    data = tiny.make_dataset(tmp_path / "data")
    lines = (data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for number in range(len(lines) // 2):
        row = json.loads(lines[number])
        del row["image"]
        lines[number] = json.dumps({**row, "prompt": row["prompt"] * (1 + number % 3)})
    (data / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    content = tiny.settings(checkpoint, data, {"schedule": "commit"}, max_steps=10, save_steps=8, seed=3)

    def recipe(name: str) -> Recipe:
        return load_recipe(tiny.write_recipe(tmp_path / "recipe.yaml", {**content, "data": MIXTURES[name]}))

    return recipe


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_mixture_goes_on_in_the_middle_of_its_second_epoch(
    mixed: Callable[[str], Recipe], tmp_path: Path, mixture: str
) -> None:
    """In this process: all after step 8 is lost."""
    recipe = mixed(mixture)
    undisturbed = train(recipe, tmp_path / "undisturbed", Console(file=io.StringIO()))
    run = RunDirectory(shutil.copytree(undisturbed.path, tmp_path / "disturbed"))
    shutil.rmtree(run.model)
    shutil.rmtree(run.checkpoints / "checkpoint-10")
    run.done_file.unlink()
    assert run.newest_checkpoint() == run.checkpoints / "checkpoint-8"
    train(recipe, run.path, Console(file=io.StringIO()), resume=True)
    assert run.metrics_file.read_bytes() == undisturbed.metrics_file.read_bytes()
    assert same(weights(run.model), weights(undisturbed.model))


@pytest.mark.parametrize("mixture", [name for name, settings in MIXTURES.items() if settings])
def test_training_draws_from_the_mixture_in_its_order(
    mixed: Callable[[str], Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixture: str
) -> None:
    recipe, drawn, collate = mixed(mixture), [], Collator.__call__

    def watched(collator: Collator, samples: list[Sample]) -> Any:
        drawn.append([sample.id for sample in samples])
        return collate(collator, samples)

    monkeypatch.setattr(Collator, "__call__", watched)
    train(recipe, tmp_path / "run", Console(file=io.StringIO()))
    samples = read_mixture(recipe, "train")
    orders = [samples.order(recipe.data, [1.0], 2, 2, seed=3, epoch=epoch).tolist() for epoch in (0, 1)]
    ids = [samples[number].id for order in orders for number in order]
    assert list(chain(*drawn))[:40] == ids[:40]  # ten steps of two micro-batches of two
    assert {len(batch) for batch in drawn} == {2}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("lines", [1, 2, 3, 4, 6, 7])
def test_killed_at_any_step(make_case: Callable[[str], Case], variant: str, lines: int) -> None:
    case = make_case(variant)
    case.kill_after(lines)
    case.resume()
    case.assert_as_undisturbed()


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "os.rename:recipe.yaml", "environment.json", "modules.json", "metrics.jsonl",
        "os.mkdir:checkpoint-2", "checkpoint-2/trainer_state.json",
        "os.mkdir:checkpoint-6", "shutil.rmtree:checkpoint-2", "os.rmdir:checkpoint-2",
        "os.mkdir:checkpoint-8", "checkpoint-8/trainer_state.json",
    ],
)  # fmt: skip
def test_killed_at_any_file(make_case: Callable[[str], Case], moment: str) -> None:
    case = make_case("commit")
    case.die(moment)
    case.resume()
    case.assert_as_undisturbed()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["os.mkdir:/.model-", "os.rename:/.model-", "os.rename:done.json"])
def test_killed_while_the_model_is_saved(make_case: Callable[[str], Case], moment: str) -> None:
    case = make_case("commit")
    case.die(moment)
    case.resume()
    case.assert_as_undisturbed()
    assert not list(case.run.path.glob(".*-*"))
