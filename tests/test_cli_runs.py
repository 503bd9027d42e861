"""The commands on real runs, each in a process of its own: train, evaluate, diagnose, report, and their mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from equipoise.training.run_directory import RunDirectory
from training import _checkpoint as tiny


@dataclass
class Ended:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]
VERDICTS = ("balanced", "oscillating", "biased toward the LLM", "biased toward the projector")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def command(command: Callable[..., dict[str, Any]], folder: Path) -> Command:
    """Run `equipoise ARGUMENTS...` in the folder."""

    def run(*arguments: str | Path) -> Ended:
        ended = command(*arguments, folder=str(folder))
        return Ended(ended["status"], ended["stdout"], ended["errors"])

    return run


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    """Enough steps, at a high enough rate, for the random model to learn what an answer looks like."""
    content = tiny.settings(
        tiny.make_checkpoint(folder / "checkpoint"), tiny.make_dataset(folder / "data"), {"schedule": "commit-clr"},
        max_steps=30, learning_rate=0.03, dropout=0.0, batch_size=8, gradient_accumulation=1,
    )  # fmt: skip
    return tiny.write_recipe(folder / "recipe.yaml", content)


@pytest.fixture(scope="module")
def trained(recipe: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command that was installed, with nothing imported before."""
    return subprocess.run(
        [Path(sys.executable).with_name("equipoise"), "train", recipe, "balance.modules.window=6", "--seed", "1"],
        cwd=folder, text=True, capture_output=True, timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "400"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(trained: subprocess.CompletedProcess[str], folder: Path) -> RunDirectory:
    assert trained.returncode == 0, trained.stderr
    return RunDirectory(folder / "runs" / "recipe")


@pytest.fixture(scope="module")
def evaluated(command: Command, run: RunDirectory) -> Ended:
    return command("evaluate", run.path)


def test_train_prints_the_modules_and_where_the_model_is(
    trained: subprocess.CompletedProcess[str], run: RunDirectory
) -> None:
    assert "projector" in trained.stdout
    assert "LoRA" in trained.stdout
    assert "step 30/30" in trained.stdout
    assert "tuned model: runs/recipe/model" in trained.stdout
    assert trained.stderr == ""


def test_train_takes_overrides_and_the_seed(run: RunDirectory) -> None:
    recipe = run.recipe()
    assert recipe.balance.modules.window == 6
    assert recipe.train.seed == 1
    assert recipe.balance.modules.schedule == "commit-clr"
    assert len(run.metrics()) == 30


def test_train_again_is_one_line_and_status_2(command: Command, recipe: Path, run: RunDirectory) -> None:
    result = command("train", recipe)
    assert result.returncode == 2
    assert result.stderr.startswith("equipoise: runs/recipe already holds a run; --resume")
    assert result.stderr.count("\n") == 1


def test_a_misspelt_setting_is_one_line_and_status_2(command: Command, recipe: Path, folder: Path) -> None:
    result = command("train", recipe, "train.learning_rat=1", "--out", folder / "misspelt")
    assert not (folder / "misspelt").exists()
    assert result.returncode == 2
    assert "train.learning_rat: unknown key; did you mean learning_rate?" in result.stderr
    assert result.stderr.count("\n") == 1


def test_evaluate_writes_scores_with_controls(evaluated: Ended, run: RunDirectory) -> None:
    assert evaluated.returncode == 0, evaluated.stderr
    scores = run.scores()
    assert scores is not None
    assert scores["split"] == "test"
    assert scores["validation_loss"] < 2.5  # nats a token; the untrained model has more than 4
    [entry] = scores["tasks"].values()
    assert entry.keys() == {"metric", "value", "samples", "majority", "shuffled_inputs"}
    assert entry["samples"] == tiny.SIZES["test"]
    for shown in (entry["value"], entry["majority"], entry["shuffled_inputs"]):
        assert f"{shown:.3f}" in evaluated.stdout


def test_score_is_recomputable_from_the_predictions(evaluated: Ended, run: RunDirectory, folder: Path) -> None:
    predictions, asked = rows(run.predictions / "colours.jsonl"), rows(folder / "data" / "test.jsonl")
    assert [row["id"] for row in predictions] == [row["id"] for row in asked]
    assert [row["prompt"] for row in predictions] == [row["prompt"] for row in asked]
    assert [row["references"] for row in predictions] == [[row["answer"]] for row in asked]
    right = [float(row["prediction"].strip().lower() == row["references"][0]) for row in predictions]
    assert [row["score"] for row in predictions] == right
    scores = run.scores()
    assert scores is not None
    assert scores["tasks"]["colours"]["value"] == pytest.approx(sum(right) / len(right))
    assert sum(right) > 0  # it has learned at least the commoner answer


def test_majority_is_the_commonest_training_answer(evaluated: Ended, run: RunDirectory, folder: Path) -> None:
    commonest, _ = Counter(row["answer"] for row in rows(folder / "data" / "train.jsonl")).most_common(1)[0]
    answers = [row["answer"] for row in rows(folder / "data" / "test.jsonl")]
    scores = run.scores()
    assert scores is not None
    assert scores["tasks"]["colours"]["majority"] == pytest.approx(answers.count(commonest) / len(answers))
    assert 0 < scores["tasks"]["colours"]["majority"] < 1


def test_evaluate_wants_a_finished_run(command: Command, folder: Path, run: RunDirectory) -> None:
    unfinished = folder / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text(run.recipe_file.read_text())
    for path, message in ((unfinished, "training has not finished"), (folder / "data", "is not a run directory")):
        result = command("evaluate", path)
        assert result.returncode == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_diagnose_measures_without_acting_and_names_a_verdict(command: Command, recipe: Path, folder: Path) -> None:
    result = command("diagnose", recipe, "train.max_steps=12")
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stdout.splitlines() if line.startswith(tuple(f"{name}: " for name in VERDICTS))]
    assert len(said) == 1
    run = RunDirectory(folder / "runs" / "recipe-diagnose")
    again = command("diagnose", run.path, "--json")  # the same of the folder, which is only read
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert said == [f"{found['verdict']['name']}: {found['verdict']['advice']}"]
    assert (found["steps"], found["finished"]) == (12, True)
    for remedy in found["to_do"]:
        assert remedy["what"] in result.stdout
    assert run.recipe().balance.modules.schedule == "constant"
    lines = run.metrics()
    assert len(lines) == 12
    assert all("kappa" in line and line["lr_factor/llm"] == line["lr_factor/projector"] == 1 for line in lines)


def test_report_is_one_file_that_needs_no_other(command: Command, run: RunDirectory, evaluated: Ended) -> None:
    result = command("report", run.path)
    assert result.returncode == 0, result.stderr
    assert f"report: {run.report_file}" in result.stdout
    page = run.report_file.read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert 'src="http' not in page
    assert "commit-clr" in page
    assert "colours" in page
    assert 'alt="Picture ' in page


def test_report_of_two_runs_goes_where_it_is_told(command: Command, run: RunDirectory, folder: Path) -> None:
    result = command("report", run.path, run.path, "--out", folder / "two.html")
    assert result.returncode == 0, result.stderr
    assert (folder / "two.html").stat().st_size > 1000
