"""CoTBal from a recipe to a balanced model, on tasks that a tiny model really learns; what is run again, and what not.

What the weights must be is computed here anew, from the scores.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from balancing import _mixture as mixture
from equipoise.balancing.run import Balancing, balance
from equipoise.errors import DataError, RecipeError, RunError
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe
from equipoise.training.run_directory import RunDirectory

Content = Callable[..., dict[str, Any]]
PROBES = {"mini", "colour+mini", "name+mini"}
ALL = PROBES | {"cotbal", "stl@colour", "stl@name", "ew"}


def silent() -> Console:
    return Console(file=io.StringIO(), width=300)


def loaded(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def folders(made: Balancing) -> dict[str, Path]:
    """The nodes' folders, by their names: NAME-HASH."""
    return {path.name: path for path in made.nodes.iterdir()}


def name_of(folder: str) -> str:
    return folder.rpartition("-")[0]


def node(made: Balancing, name: str) -> RunDirectory:
    [path] = [path for folder, path in folders(made).items() if name_of(folder) == name]
    return RunDirectory(path)


def softmax(values: dict[str, float], temperature: float) -> dict[str, float]:
    powers = {task: math.exp(value / temperature) for task, value in values.items()}
    return {task: len(values) * power / sum(powers.values()) for task, power in powers.items()}


def rerun(made: Balancing, folder: Path, recipe: Recipe, *compare: str) -> set[str]:
    """Balance again in a copy; the names of the nodes that were run, which the others' untouched files prove."""
    shutil.copytree(made.path, folder)
    copy = Balancing(folder)
    before = {name: (path / "done.json").stat().st_mtime_ns for name, path in folders(copy).items()}
    balance(recipe, folder, silent(), compare)
    after = {name: (path / "done.json").stat().st_mtime_ns for name, path in folders(copy).items()}
    assert before.items() <= after.items()
    return {name_of(name) for name in after.keys() - before.keys()}


@pytest.fixture
def changed(content: Content) -> Callable[..., Recipe]:
    """The recipe with other settings of a task."""

    def change(task: str, **settings: Any) -> Recipe:
        plain = content()
        [found] = [each for each in plain["tasks"] if each["name"] == task]
        found |= settings
        return parse_recipe(plain, "changed")

    return change


# ------------------------------------------------------------------ what it leaves


def test_the_mixture_really_learns(finished):
    scores = loaded(finished.balance_file)["scores"]
    for task in mixture.SCORED:
        assert 0 <= scores["mini"][task] < scores[f"{task}+mini"][task] <= 1
    assert "degenerate" not in loaded(finished.balance_file)


def test_every_node_has_a_run_directory_and_nothing_to_resume_is_kept(finished):
    assert {name_of(folder) for folder in folders(finished)} == ALL
    for path in folders(finished).values():
        run = RunDirectory(path)
        assert run.done
        assert run.model.is_dir()
        assert not run.checkpoints.exists()


def test_weights_follow_from_the_scores(finished):
    found = loaded(finished.balance_file)
    v = found["scores"]
    assert v.keys() == PROBES
    for run in PROBES:
        kept = loaded(node(finished, run).path / "scores-validation.json")
        assert v[run] == {task: kept["tasks"][task]["value"] for task in mixture.SCORED}
        assert kept["split"] == "validation"
        assert "shuffled_inputs" not in kept["tasks"]["colour"]
    a, b = mixture.SCORED
    gives = {i: (v[f"{i}+mini"][j] - v["mini"][j]) / (v[f"{j}+mini"][j] - v["mini"][j]) for i, j in ((a, b), (b, a))}
    receives = {a: gives[b], b: gives[a]}
    hard = {i: (v[f"{i}+mini"][i] - v["mini"][i]) / v[f"{i}+mini"][i] for i in mixture.SCORED}
    giving, receiving = softmax(gives, 0.5), softmax({i: -x for i, x in receives.items()}, 0.5)
    difficult = softmax(hard, 0.5)
    expected = {i: 0.5 * (giving[i] + receiving[i]) / 2 + 0.5 * difficult[i] for i in mixture.SCORED}
    assert found["weights"]["cotbal"] == pytest.approx(expected)
    assert found["weights"]["one2all"] == pytest.approx(giving)
    assert found["difficulty"] == pytest.approx(hard)
    assert abs(expected[a] - expected[b]) > 0.1  # or the final run would not show them
    assert found["settings"]["mini_fraction"] == 1 / mixture.SAMPLES
    assert found["nodes"] == {name_of(folder): folder for folder in folders(finished) if name_of(folder) in PROBES}


def test_the_final_run_is_trained_with_these_weights_and_a_conversation_with_1(finished):
    weights = loaded(finished.balance_file)["weights"]["cotbal"]
    assert finished.final.path == node(finished, "cotbal").path
    settings = finished.final.recipe().balance.tasks
    assert (settings.weighter, settings.weights) == ("cotbal", weights)
    lines = finished.final.metrics()
    assert lines
    for line in lines:
        assert {task: line[f"task_weight/{task}"] for task in mixture.SCORED} == weights
        assert line["task_weight/chat"] == 1.0


def test_each_run_trains_on_what_its_name_says(finished):
    def samples(name: str) -> dict[str, int]:
        return {task: counts["samples"] for task, counts in loaded(node(finished, name).data_file)["train"].items()}

    n = mixture.SAMPLES
    assert samples("mini") == {"colour": 1, "name": 1, "chat": 1}
    assert samples("colour+mini") == {"colour": n, "name": 1, "chat": 1}
    assert samples("name+mini") == {"colour": 1, "name": n, "chat": 1}
    assert samples("cotbal") == samples("ew") == {"colour": n, "name": n, "chat": n}
    assert samples("stl@colour") == {"colour": n}
    assert node(finished, "ew").recipe().balance.tasks.weighter == "ew"


def test_test_scores_by_method_and_the_deltas(finished):
    found = loaded(finished.results_file)
    assert found["test"].keys() == {"cotbal", "stl", "ew"}
    for method, runs in (("cotbal", ["cotbal"]), ("ew", ["ew"]), ("stl", ["stl@colour", "stl@name"])):
        entries: dict[str, Any] = {}
        for run in runs:
            entries |= loaded(node(finished, run).path / "scores-test.json")["tasks"]
        assert found["test"][method] == {
            "colour": {
                "exact_match": entries["colour"]["value"],
                "colour-again exact_match": entries["colour-again"]["value"],
            },
            "name": {"exact_match": entries["name"]["value"]},
        }
    single = found["test"]["stl"]
    for method in ("cotbal", "ew"):
        scores = found["test"][method]
        gains = {
            task: sum((scores[task][name] - base) / base for name, base in bases.items()) / len(bases)
            for task, bases in single.items()
        }
        assert found["deltas"][method]["delta_i"] == pytest.approx(100 * sum(gains.values()) / 2)
        assert found["deltas"][method]["delta_e"] == pytest.approx(-100 * sum(min(0, g) for g in gains.values()) / 2)
    assert "degenerate" not in found


def test_without_comparison_there_are_test_scores_and_no_deltas(finished, recipe, tmp_path):
    assert rerun(finished, tmp_path / "out", recipe) == set()
    found = loaded(tmp_path / "out" / "results.json")
    assert found["test"].keys() == {"cotbal"}
    assert found["deltas"] == {}


# ------------------------------------------------------------------ what is run again


def test_the_same_again_runs_nothing_and_leaves_the_same(finished, recipe, tmp_path):
    assert rerun(finished, tmp_path / "out", recipe, "stl", "ew") == set()
    for file in ("balance.json", "results.json"):
        assert (tmp_path / "out" / file).read_bytes() == (finished.path / file).read_bytes()


def test_another_method_runs_alone(finished, recipe, tmp_path):
    assert rerun(finished, tmp_path / "out", recipe, "tla", "stl", "ew") == {"tla"}
    assert node(Balancing(tmp_path / "out"), "tla").recipe().balance.tasks.weighter == "tla"


def test_other_weights_run_the_final_run_alone(finished, content, tmp_path):
    recipe = parse_recipe(content(temperature=2.0), "warm")
    assert rerun(finished, tmp_path / "out", recipe, "stl", "ew") == {"cotbal"}
    before, after = (loaded(path / "balance.json") for path in (finished.path, tmp_path / "out"))
    assert before["scores"] == after["scores"]
    assert before["weights"] != after["weights"]


def done(made: Balancing, recipe: Recipe, *compare: str) -> set[str]:
    """The nodes that a dry run shows as done: those that the command would not run."""
    console = silent()
    balance(recipe, made.path, console, compare, dry_run=True)
    rows = [line.strip("│").split("│") for line in console.file.getvalue().splitlines() if line.startswith("│")]
    return {cells[0].strip() for cells in rows if cells[-1].strip() == "yes"}


def test_a_changed_task_leaves_what_does_not_contain_it(finished, recipe, changed):
    assert done(finished, recipe, "stl", "ew") == ALL
    assert done(finished, changed("name", max_train=15), "stl", "ew") == {"stl@colour"}
    assert done(finished, changed("name", max_new_tokens=7), "stl", "ew") == {"stl@colour"}


def test_another_test_part_leaves_the_probes(finished, changed):
    shorter = changed("name", max_test=5)
    assert done(finished, shorter, "stl", "ew") == ALL - {"cotbal", "stl@name", "ew"}


def test_a_conversation_is_in_every_run_but_those_of_other_tasks_alone(finished, changed):
    assert done(finished, changed("chat", max_train=15), "stl", "ew") == {"stl@colour", "stl@name"}
    assert done(finished, changed("chat", test="test"), "stl", "ew") == ALL - {"cotbal", "ew"}


@pytest.mark.parametrize(
    ("file", "kept"),
    [
        ("name/validation.jsonl", {"stl@colour"}),
        ("name/train.jsonl", {"stl@colour"}),
        ("name/test.jsonl", PROBES | {"stl@colour"}),
        ("chat/train.jsonl", {"stl@colour", "stl@name"}),
        ("chat/validation.jsonl", ALL),  # which the recipe leaves out
    ],
)
def test_a_touched_file_is_other_data(finished, recipe, data, file, kept):
    state = (data / file).stat()
    os.utime(data / file, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))
    try:
        assert done(finished, recipe, "stl", "ew") == kept
    finally:
        os.utime(data / file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert done(finished, recipe, "stl", "ew") == ALL


def test_a_touched_model_is_another_one(finished, recipe, checkpoint):
    file = checkpoint / "config.json"
    state = file.stat()
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))
    try:
        assert done(finished, recipe, "stl", "ew") == set()
    finally:
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


# ------------------------------------------------------------------ degenerate scores


@pytest.fixture
def unteachable(content: Content) -> Callable[..., Recipe]:
    """A model that does not learn, whose scores are all 0."""

    def make(**cotbal: Any) -> Recipe:
        plain = content(**cotbal)
        plain["train"] |= {"learning_rate": 0.0, "epochs": 1}
        return parse_recipe(plain, "unteachable")

    return make


def test_degenerate_scores_stop_it_as_soon_as_they_exist(unteachable, tmp_path):
    with pytest.raises(
        DataError,
        match=r"^task colour: score 0\.0 after colour\+mini is not above 0\.0 after mini, .*--on-degenerate zero",
    ):
        balance(unteachable(), tmp_path / "out", silent())
    made = Balancing(tmp_path / "out")
    assert {name_of(folder) for folder in folders(made)} == {"mini", "colour+mini"}
    assert not made.balance_file.exists()


def test_zero_goes_on_and_flags_what_is_undefined_everywhere(unteachable, tmp_path):
    console = silent()
    made = balance(unteachable(on_degenerate="zero"), tmp_path / "out", console, compare=("stl",))
    found = loaded(made.balance_file)
    assert found["degenerate"] == {"contributions": ["colour", "name"], "difficulty": ["colour", "name"]}
    assert found["weights"]["cotbal"] == {"colour": 1.0, "name": 1.0}
    assert found["settings"]["on_degenerate"] == "zero"
    results = loaded(made.results_file)
    assert results["degenerate"]["improvements"] == [
        "task colour, exact_match", "task colour, colour-again exact_match", "task name, exact_match",
    ]  # fmt: skip
    assert results["deltas"]["cotbal"]["delta_i"] == 0
    assert results["test"]["stl"]["name"] == {"exact_match": 0}
    printed = console.file.getvalue()
    assert "0.0000*" in printed
    assert "stl scores 0 on task name, exact_match" in printed


def rescore(made: Balancing, run: str, split: str, /, **values: float) -> None:
    """Change a node's scores as if its model had answered otherwise."""
    file = node(made, run).path / f"scores-{split}.json"
    tasks = {task: {"value": value} for task, value in values.items()}
    file.write_text(json.dumps({"split": split, "tasks": tasks}))


@pytest.fixture
def copy(finished: Balancing, tmp_path: Path) -> Balancing:
    shutil.copytree(finished.path, tmp_path / "copy")
    return Balancing(tmp_path / "copy")


def test_a_single_task_score_of_0_stops_the_comparison_at_once(recipe, copy):
    rescore(copy, "stl@colour", "test", colour=0.0)
    with pytest.raises(DataError, match=r"^stl: the score of task colour, exact_match is 0, so no improvement"):
        balance(recipe, copy.path, silent(), compare=("stl", "ew"))


def test_a_precise_difficulty_without_a_score_stops_it_at_once(content, copy):
    rescore(copy, "stl@colour", "validation", colour=0.0)
    recipe = parse_recipe(content(difficulty="precise"), "precise")
    with pytest.raises(DataError, match=r"^task colour: score 0 with all of its data .*its difficulty is not defined"):
        balance(recipe, copy.path, silent())
    assert {name_of(folder) for folder in folders(copy)} == ALL | {"stl-mini@colour"}


# ------------------------------------------------------------------ precise, mistakes, dry runs


def test_precise_difficulty_comes_from_runs_without_the_others(finished, content, tmp_path):
    recipe = parse_recipe(content(difficulty="precise"), "precise")
    ran = rerun(finished, tmp_path / "out", recipe, "stl")
    # The models that `stl` compares with are there already, and only their validation scores were missing.
    assert ran | {"cotbal"} == {"stl-mini@colour", "stl-mini@name", "cotbal"}
    found, made = loaded(tmp_path / "out" / "balance.json"), Balancing(tmp_path / "out")
    for task in mixture.SCORED:
        small, whole = (
            loaded(node(made, name).path / "scores-validation.json")["tasks"][task]["value"]
            for name in (f"stl-mini@{task}", f"stl@{task}")
        )
        assert found["scores"][f"stl-mini@{task}"] == {task: small}
        assert found["difficulty"][task] == pytest.approx((whole - small) / whole)
        for split in ("validation", "test"):
            assert loaded(node(made, f"stl@{task}").path / f"scores-{split}.json")["split"] == split


def test_a_dry_run_prints_the_graph_and_runs_nothing(recipe, finished, tmp_path):
    console = silent()
    balance(recipe, tmp_path / "out", console, compare=("stl", "ew"), dry_run=True)
    assert not (tmp_path / "out").exists()
    printed = console.file.getvalue()
    for name in ALL:
        assert name in printed
    # 3 of 54 samples; 20 of 54, twice; 1; 18 of 54, twice; 1.
    assert "together they cost 3.46 times the final run's training, of which 0.00 are done" in printed

    console = silent()
    balance(recipe, finished.path, console, compare=("stl", "ew", "rlw"), dry_run=True)
    assert "together they cost 4.46 times the final run's training, of which 3.46 are done" in console.file.getvalue()


def test_a_share_that_the_recipe_trains_on_is_what_subsets_are_shares_of(changed, tmp_path):
    console = silent()
    balance(changed("name", fraction=0.5), tmp_path / "out", console, dry_run=True)
    # Of 18 + 9 + 18 samples: 3, 20, 11, and all.
    assert "together they cost 1.76 times the final run's training" in console.file.getvalue()


@pytest.mark.parametrize(
    ("settings", "compare", "message"),
    [
        ({}, ("dwb",), r"^--compare: found 'dwb'; allowed: stl, ew, tla, rlw, dwa, igbv1$"),
        ({"balance": {"tasks": {"weights": {"colour": 2}}}}, (), r"^balance\.tasks\.weights: .* leave them out$"),
        ({"train": {"learning_rate": {"llm": 1.0}}}, (), r"^train\.learning_rate: module projector is missing"),
    ],
    ids=["method", "weights", "module"],
)
def test_a_mistake_is_found_before_anything_is_trained(content, tmp_path, settings, compare, message):
    recipe = parse_recipe({**content(), **settings}, "mistaken")
    with pytest.raises(RecipeError, match=message):
        balance(recipe, tmp_path / "out", silent(), compare)
    assert not (tmp_path / "out").exists()


def test_a_run_directory_is_no_place_for_it(recipe, finished):
    with pytest.raises(RunError, match=r"is a run directory; --out names another folder$"):
        balance(recipe, finished.final.path, silent())
