"""Methods by seeds from a recipe to numbers; what is run again, and what not. Numbers are read from the runs anew."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from scipy import stats

from comparing import _tiny as tiny
from equipoise.comparing.run import Comparison, compare
from equipoise.comparing.verdict import ONE_SEED, verdicts
from equipoise.errors import RecipeError, RunError
from equipoise.locks import lock
from equipoise.report import report_on
from equipoise.training.run_directory import RunDirectory

SETS = {("colour", "exact_match"), ("colour", "colour-again exact_match"), ("name", "exact_match")}


def silent() -> Console:
    return Console(file=io.StringIO(), width=300)


def loaded(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def nodes(made: Comparison) -> dict[str, Path]:
    return {tiny.name_of(path): path for path in made.nodes.iterdir()}


def ends(made: Comparison) -> dict[str, int]:
    """When each run ended."""
    return {name: RunDirectory(path).done_file.stat().st_mtime_ns for name, path in nodes(made).items()}


@pytest.fixture
def copy(finished: Comparison, tmp_path: Path) -> Comparison:
    shutil.copytree(finished.path, tmp_path / "copy")
    return Comparison(tmp_path / "copy")


def test_every_method_is_trained_with_every_seed_and_scored(finished):
    assert sorted(nodes(finished)) == sorted(tiny.NODES)
    found = loaded(finished.file)
    assert [one["nodes"][0].rpartition("-")[0] for one in found["runs"]] == tiny.NODES
    assert (found["baseline"], found["split"], found["seeds"]) == ("constant", "test", [0, 1])
    for name, path in nodes(finished).items():
        method, _, seed = name.rpartition("@")
        recipe = RunDirectory(path).recipe()
        schedule, _, weighter = method.partition("+")
        assert (recipe.balance.modules.schedule, recipe.train.seed) == (schedule, int(seed))
        assert recipe.balance.tasks.weighter == (weighter or "ew")
        assert not (path / "checkpoints").exists()


def test_the_numbers_are_the_runs(finished):
    found = loaded(finished.file)
    for one in found["runs"]:
        folder = finished.nodes / one["nodes"][0]
        scores = loaded(folder / "scores-test.json")
        assert one["scores"]["name"] == {"exact_match": scores["tasks"]["name"]["value"]}
        assert one["scores"]["colour"]["colour-again exact_match"] == scores["tasks"]["colour-again"]["value"]
        assert one["validation_loss"] == scores["validation_loss"] > 0
        assert one["kappa"] > 0
        assert one["step_time"] > 1
    cells = {(c.get("task"), c["quantity"]): c for c in found["scores"] if c["method"] != "constant"}
    assert set(cells) == SETS
    loss = next(c for c in found["training"] if c["method"] != "constant" and c["quantity"] == "validation loss")
    by_method = {m: [r["validation_loss"] for r in found["runs"] if r["method"] == m] for m in found["methods"]}
    test = stats.ttest_rel(by_method["commit-clr+dwa"], by_method["constant"])
    assert loss["difference"]["p"] == pytest.approx(test.pvalue)
    assert loss["difference"]["interval"] == pytest.approx(list(test.confidence_interval(0.95)))
    assert loss["mean"] == pytest.approx(sum(by_method["commit-clr+dwa"]) / 2)


def test_the_tables_are_written_and_printed(recipe_file, copy):
    console = silent()
    compare(tiny.recipes(recipe_file), tiny.SEEDS, copy.path, console)
    printed = console.file.getvalue()
    assert "4 runs, of which 4 are done" in printed
    assert "commit-clr+dwa: no difference shown. Against constant: " in printed
    assert "2 seeds prove little" in printed
    for name in ("comparison.md", "comparison.tex", "comparison.csv"):
        assert "commit-clr" in (copy.path / name).read_text(encoding="utf-8")
    assert "balance.modules.schedule" in (copy.path / "comparison.md").read_text(encoding="utf-8").replace("\\", "")


def test_another_seed_runs_that_seed_alone(recipe_file, copy):
    before = ends(copy)
    made = compare(tiny.recipes(recipe_file), (0, 1, 5), copy.path, silent())
    after = ends(made)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"constant@5", "commit-clr+dwa@5"}
    found = loaded(made.file)
    assert len(found["runs"]) == 6
    assert {cell["seeds"] for cell in found["scores"]} == {3}


def test_another_method_runs_that_method_alone(recipe_file, copy):
    before = ends(copy)
    own = "half of it & more: train.max_steps=4"
    made = compare(tiny.recipes(recipe_file, tiny.METHODS, own), (0,), copy.path, silent(), "commit-clr+dwa")
    after = ends(made)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"half_of_it___more@0"}
    found = loaded(made.file)
    assert [one["method"] for one in found["runs"]] == ["constant", "commit-clr+dwa", "half of it & more"]
    assert found["settings"]["half of it & more"]["train.max_steps"] == 4
    assert found["baseline"] == "commit-clr+dwa"
    assert [c["method"] for c in found["scores"] if c["difference"] is None and c.get("task") == "name"] == [
        "commit-clr+dwa"
    ]


def test_one_model_a_task_is_one_method_and_what_deltas_are_against(recipe_file, copy):
    made = compare(tiny.recipes(recipe_file, "constant,stl"), (0,), copy.path, silent())
    assert set(nodes(made)) == {*tiny.NODES, "stl@colour@0", "stl@name@0"}
    found = loaded(made.file)
    [single] = [one for one in found["runs"] if one["method"] == "stl"]
    assert (len(single["nodes"]), single["kappa"], single["validation_loss"]) == (2, None, None)
    for task, test_set, name in (
        ("colour", "exact_match", "colour"),
        ("colour", "colour-again exact_match", "colour-again"),
        ("name", "exact_match", "name"),
    ):
        trained_on = nodes(made)[f"stl@{task}@0"]
        assert [t.name for t in RunDirectory(trained_on).recipe().tasks if t.train] == [task]
        assert single["scores"][task][test_set] == loaded(trained_on / "scores-test.json")["tasks"][name]["value"]
    page = report_on([made.path]).read_text(encoding="utf-8")
    assert "one model a task (stl)" in page or "Delta I and Delta E are not defined here (seed 0: stl: " in page


def test_a_setting_that_decides_nothing_runs_nothing_again(recipe_file, copy):
    before = ends(copy)
    recipes = {
        name: recipe.model_copy(
            update={
                "train": recipe.train.model_copy(
                    update={"arguments": {"push_to_hub": True}, "seed": 9, "feature_folder": copy.path / "features"}
                )
            }
        )
        for name, recipe in tiny.recipes(recipe_file).items()
    }
    compare(recipes, tiny.SEEDS, copy.path, silent())
    assert ends(copy) == before


def test_a_comparison_on_the_way_shows_what_is_finished(recipe_file, copy):
    shutil.rmtree(nodes(copy)["commit-clr+dwa@1"])
    shutil.rmtree(nodes(copy)["constant@1"])
    console = silent()
    console.rule = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # the first run that is not there yet
    with pytest.raises(KeyboardInterrupt):
        compare(tiny.recipes(recipe_file), tiny.SEEDS, copy.path, console)
    found = loaded(copy.file)
    assert [one["nodes"][0].rpartition("-")[0] for one in found["runs"]] == tiny.NODES[:2]
    assert {cell["seeds"] for cell in found["scores"]} == {1}
    page = report_on([copy.path]).read_text(encoding="utf-8")
    assert "2 of 4 runs: constant with seed 1, commit-clr+dwa with seed 1" in page
    assert "One seed: nothing can be shown" in page


@pytest.fixture(scope="module")
def without_metrics(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of which nothing can be scored, and two steps of it."""
    content = yaml.safe_load(recipe_file.read_text(encoding="utf-8"))
    [task] = [task for task in content["tasks"] if task["name"] == "name"]
    content["tasks"] = [{key: task[key] for key in ("name", "reader", "path")}]
    content["train"] |= {"max_steps": 2}
    file = tmp_path_factory.mktemp("unscored") / "unscored.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def test_without_a_metric_methods_are_compared_by_the_validation_loss(without_metrics, tmp_path):
    recipes = tiny.recipes(without_metrics, "constant,commit-clr")
    made = compare(recipes, (0,), tmp_path / "out", silent())
    found = loaded(made.file)
    assert found["split"] is None
    for one in found["runs"]:
        folder = made.nodes / one["nodes"][0]
        kept = loaded(folder / "scores-loss.json")
        assert one["scores"] == kept["tasks"] == {}
        assert one["validation_loss"] == kept["validation_loss"] > 0
        # What training logs is of a step of its own, and not what is compared.
        with RunDirectory(folder).metrics_file.open("a", encoding="utf-8") as log:
            log.write('{"step": 2, "validation_loss": 77.0}\n')
    [verdict] = verdicts(made.summary)
    assert verdict.kind == ONE_SEED
    assert "on validation loss " in verdict.sentence

    # A run is done once it has its loss.
    node = nodes(made)["commit-clr@0"]
    (node / "scores-loss.json").unlink()
    console = silent()
    compare(recipes, (0,), made.path, console, dry_run=True)
    assert "2 runs, of which 1 are done" in console.file.getvalue()
    scores = loaded(node / "scores.json")
    (node / "scores.json").write_text(json.dumps({**scores, "validation_loss": None}), encoding="utf-8")
    (node / "scores-loss.json").write_text("{}", encoding="utf-8")
    again = compare(recipes, (0,), made.path, silent())
    losses = {one["method"]: one["validation_loss"] for one in loaded(again.file)["runs"]}
    assert losses == {"constant": found["runs"][0]["validation_loss"], "commit-clr": None}
    [verdict] = verdicts(again.summary)
    assert verdict.sentence.startswith("commit-clr and constant have no quantity in common that says which is better")


def test_where_nothing_can_be_compared_nothing_is_trained(without_metrics, tmp_path):
    recipes = {
        name: recipe.model_copy(
            update={"tasks": [task.model_copy(update={"validation": None}) for task in recipe.tasks]}
        )
        for name, recipe in tiny.recipes(without_metrics, "constant,commit-clr").items()
    }
    with pytest.raises(RecipeError, match=r"^found nothing to compare the methods by: no task has a metric and a test"):
        compare(recipes, (0,), tmp_path / "out", silent())
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_runs_and_makes_nothing(recipe_file, finished, tmp_path):
    console = silent()
    compare(tiny.recipes(recipe_file), (0, 1, 2), tmp_path / "out", console, dry_run=True)
    assert not (tmp_path / "out").exists()
    for name in [*tiny.NODES, "constant@2"]:
        assert name in console.file.getvalue()
    assert "6 runs, of which 0 are done" in console.file.getvalue()
    console = silent()
    compare(tiny.recipes(recipe_file), (0, 1, 2), finished.path, console, dry_run=True)
    assert "6 runs, of which 4 are done" in console.file.getvalue()


def test_only_what_nobody_is_writing_is_swept_away(tmp_path, monkeypatch):
    made = Comparison(tmp_path)
    (live, old, own) = (tmp_path / name for name in (".report.html-live", ".report.html-old", ".comparison.md-x"))
    for file in (live, old, own):
        file.touch()
    os.utime(old, (1.0, 1.0))
    glob = Path.glob

    def renamed_meanwhile(path: Path, pattern: str) -> list[Path]:
        return [*glob(path, pattern), path / pattern.replace("*", "gone")]

    monkeypatch.setattr(Path, "glob", renamed_meanwhile)
    made.sweep()
    assert [path.name for path in tmp_path.iterdir()] == [live.name]


def test_the_page_is_drawn_while_nobody_else_is_at_work(recipe_file, copy, monkeypatch):
    held = []

    def draw(folders: list[Path]) -> None:
        with pytest.raises(RunError), lock(copy.path):
            pass
        held.append(folders)

    monkeypatch.setattr("equipoise.comparing.run.report_on", draw)
    compare(tiny.recipes(recipe_file), tiny.SEEDS, copy.path, silent())
    assert held == [[copy.path]]


def test_two_at_once_are_refused(recipe_file, tmp_path):
    with (
        lock(tmp_path / "out"),
        pytest.raises(RunError, match=r"^another equipoise command is at work in .*out: process \d+ on "),
    ):
        compare(tiny.recipes(recipe_file), (0,), tmp_path / "out", silent())
    assert not (tmp_path / "out" / "comparison.json").exists()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            ["a: balance.modules.schedule=constant"],
            r"^methods constant and a are the same: their recipes do not differ$",
        ),
        (["a: tasks.name.max_test=2"], r"^method a: tasks\.name\.max_test is 2 and None in constant; all methods must"),
        (
            ["a: tasks.name.metric=rouge_l"],
            r"^method a: tasks\.name\.metric is 'rouge_l' and 'exact_match' in constant",
        ),
        (["a: 'train.learning_rate={llm: 1}'"], r"^train\.learning_rate: module projector is missing"),
    ],
    ids=["same", "test", "metric", "module"],
)
def test_a_mistake_is_found_before_anything_is_trained(recipe_file, tmp_path, own, message):
    with pytest.raises(RecipeError, match=message):
        compare(tiny.recipes(recipe_file, "constant", *own), (0,), tmp_path / "out", silent())
    assert not (tmp_path / "out").exists()


def test_a_run_or_a_balance_is_no_place_for_it(recipe_file, finished, tmp_path):
    for folder, file in ((nodes(finished)["constant@0"], "recipe.yaml"), (tmp_path, "balance.json")):
        (folder / file).touch()
        with pytest.raises(RunError, match=rf"has a {file} and so is no comparison's; --out names another folder$"):
            compare(tiny.recipes(recipe_file), (0,), folder, silent())
