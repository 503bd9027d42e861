"""What `train` does about the folder it is given: it never mixes runs and never loses anything."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.errors import DataError, PartitionError, RecipeError, RunError
from equipoise.recipe import Recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory

MakeRecipe = Callable[..., Recipe]
SHORT = {"max_steps": 2}


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with when it was written and what is in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def silent() -> Console:
    return Console(file=io.StringIO(), width=400)


@pytest.fixture(scope="module")
def finished(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(make_recipe({"schedule": "constant"}, **SHORT), tmp_path_factory.mktemp("finished") / "run", silent())


def test_resuming_a_finished_run_says_so_and_changes_nothing(make_recipe: MakeRecipe, finished: RunDirectory) -> None:
    before, screen = contents(finished.path), io.StringIO()
    console = Console(file=screen, width=400)
    train(make_recipe({"schedule": "constant"}, **SHORT), finished.path, console, resume=True)
    assert screen.getvalue().strip() == f"{finished.path}: already finished"
    assert contents(finished.path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_another_recipes_folder_is_refused(make_recipe: MakeRecipe, finished: RunDirectory, resume: bool) -> None:
    before = contents(finished.path)
    with pytest.raises(RunError, match="another recipe" if resume else "--resume"):
        train(make_recipe({"schedule": "commit"}, **SHORT), finished.path, silent(), resume=resume)
    assert contents(finished.path) == before


@pytest.mark.parametrize("cache", [None, 0])
def test_where_features_are_kept_is_no_other_recipe_but_whether_they_are_is(
    make_recipe: MakeRecipe, tmp_path: Path, cache: int | None
) -> None:
    run, features = tmp_path / "run", tmp_path / "features"
    train(make_recipe({"schedule": "constant"}, feature_cache=cache, **SHORT), run, silent())
    before = contents(run)
    elsewhere = make_recipe({"schedule": "constant"}, feature_cache=cache, feature_folder=str(features), **SHORT)
    if cache == 0:
        with pytest.raises(RunError, match="another recipe"):
            train(elsewhere, run, silent(), resume=True)
    else:
        train(elsewhere, run, silent(), resume=True)
    assert contents(run) == before


def test_the_same_recipe_again_needs_resume(make_recipe: MakeRecipe, finished: RunDirectory) -> None:
    before = contents(finished.path)
    with pytest.raises(RunError, match="already holds a run; --resume"):
        train(make_recipe({"schedule": "constant"}, **SHORT), finished.path, silent())
    assert contents(finished.path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_foreign_folder_is_refused(make_recipe: MakeRecipe, tmp_path: Path, resume: bool) -> None:
    (tmp_path / "checkpoints/checkpoint-7").mkdir(parents=True)
    (tmp_path / "checkpoints/checkpoint-7/weights.bin").write_text("dear to somebody")
    (tmp_path / "metrics.jsonl").write_text("not ours")
    before = contents(tmp_path)
    with pytest.raises(RunError, match="not empty and holds no run"):
        train(make_recipe(**SHORT), tmp_path, silent(), resume=resume)
    assert contents(tmp_path) == before


def test_resume_starts_a_run_where_there_is_none(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(make_recipe({"schedule": "constant"}, **SHORT), tmp_path / "new", silent(), resume=True)
    assert run.done
    assert len(run.metrics()) == 2


def test_resume_after_a_kill_while_the_recipe_was_written(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / ".recipe.yaml-x1y2z3").write_text("model:")
    assert train(make_recipe({"schedule": "constant"}, **SHORT), tmp_path, silent(), resume=True).done


def refused(recipe: Recipe, folder: Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(recipe, folder, silent())
    assert not folder.exists()


def test_what_cannot_run_leaves_no_folder(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    refused(make_recipe({"reference": "ears"}), tmp_path / "run", RecipeError, "reference.*'ears'.*projector, llm")
    refused(
        make_recipe(learning_rate={"projector": 1e-3}),
        tmp_path / "run",
        RecipeError,
        "learning_rate: module llm is missing",
    )
    refused(
        make_recipe(learning_rate={"projector": 1e-3, "llm": 1e-3, "vision_tower": 1e-3}),
        tmp_path / "run", RecipeError, r"learning_rate\.vision_tower",
    )  # fmt: skip
    refused(make_recipe({"controller": "servo", "gain": 9.0}), tmp_path / "run", RecipeError, "gain: found 9")


@pytest.mark.parametrize("name", ["output_dir", "max_steps", "gradient_accumulation_steps", "colour"])
def test_arguments_that_the_recipe_decides_are_refused(make_recipe: MakeRecipe, tmp_path: Path, name: str) -> None:
    refused(make_recipe(arguments={name: 1}), tmp_path / "run", RecipeError, rf"train\.arguments\.{name}")


def test_one_module_alone_is_refused_before_weights_load(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.models.loading.load", lambda _: pytest.fail("weights were loaded"))
    recipe = make_recipe({"schedule": "commit"})
    frozen = recipe.model_copy(update={"model": recipe.model.model_copy(update={"train": {"projector": "frozen"}})})
    refused(frozen, tmp_path / "run", PartitionError, "only llm has trainable parameters")


def test_missing_split_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    [task] = recipe.tasks
    refused(
        recipe.model_copy(update={"tasks": [task.model_copy(update={"train": "trian"})]}),
        tmp_path / "run", DataError, "trian.jsonl cannot be read",
    )  # fmt: skip
