"""The runs of a comparison, from recipes alone."""

from __future__ import annotations

from typing import Any

import pytest

from equipoise.comparing.plan import make_plan
from equipoise.errors import RecipeError
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe

COUNTS = {"a": 100, "b": 10}


def recipe(schedule: str = "constant", tasks: dict[str, Any] | None = None, **train: Any) -> Recipe:
    """Two tasks of packaged data."""
    content = {
        "model": {"path": "embedded:smol-vlm", "lora": {"merge": True}},
        "tasks": [{"name": name, "reader": "easy_vqa", "metric": "exact_match"} for name in COUNTS],
        "balance": {"modules": {"schedule": schedule}, "tasks": tasks or {}},
        "train": {"arguments": {"push_to_hub": True, "hub_model_id": "me/mine"}, **train},
    }
    return parse_recipe(content, "planned")


def test_each_seed_has_all_methods_before_the_next():
    plan = make_plan({"x": recipe(), "y": recipe("commit")}, (3, 1), "x", COUNTS, ["a"], ["a"])
    assert [node.name for node in plan.nodes] == ["x@3", "y@3", "x@1", "y@1"]
    assert [run.recipe.train.seed for run in plan.runs] == [3, 3, 1, 1]
    assert {node.scored_on for node in plan.nodes} == {("test",)}
    assert plan.settings == {
        "x": {"balance.modules.schedule": "constant"},
        "y": {"balance.modules.schedule": "commit"},
    }


def test_runs_of_a_comparison_are_not_published_nor_saved_twice():
    [run] = make_plan({"x": recipe()}, (0,), "x", COUNTS, [], ["a"]).runs
    assert run.recipe.train.arguments == {}
    assert run.recipe.model.lora is not None
    assert not run.recipe.model.lora.merge


def test_what_is_scored_where_nothing_can_be_tested():
    for validated, split in ((["a"], "validation"), ([], None)):
        plan = make_plan({"x": recipe()}, (0,), "x", COUNTS, validated, [])
        assert plan.split == split
        assert plan.nodes[0].scored_on == (split or "loss",)


def test_settings_of_other_weighters_decide_nothing():
    found = [
        make_plan({"x": recipe(tasks=tasks)}, (0,), "x", COUNTS, [], ["a"]).nodes[0].recipe
        for tasks in ({"weighter": "tla"}, {"weighter": "tla", "window": 7, "temperature": 1.0, "seed": 4})
    ]
    assert found[0] == found[1]
    kept = make_plan({"x": recipe(tasks={"weighter": "dwa", "window": 7})}, (0,), "x", COUNTS, [], ["a"])
    assert kept.nodes[0].recipe.balance.tasks.window == 7
    fixed = make_plan({"x": recipe(tasks={"weighter": "fixed", "weights": {"a": 2.0}})}, (0,), "x", COUNTS, [], ["a"])
    assert fixed.nodes[0].recipe.balance.tasks.weights == {"a": 2.0}


def test_learning_rates_by_module_are_settings_of_their_own():
    rates = {"x": recipe(learning_rate=1e-4), "y": recipe(learning_rate={"llm": 1e-5, "projector": 1e-3})}
    settings = make_plan(rates, (0,), "x", COUNTS, [], ["a"]).settings
    assert settings["x"]["train.learning_rate"] == 1e-4
    assert (settings["y"]["train.learning_rate.llm"], settings["y"]["train.learning_rate"]) == (1e-5, None)


def test_one_model_a_task():
    plan = make_plan({"x": recipe(), "stl": recipe()}, (0, 1), "x", COUNTS, [], ["a", "b"])
    assert [node.name for node in plan.nodes] == [
        "x@0", "stl@a@0", "stl@b@0", "x@1", "stl@a@1", "stl@b@1",
    ]  # fmt: skip
    assert [[task.name for task in node.recipe.tasks] for node in plan.runs[1].nodes] == [["a"], ["b"]]
    assert [node.recipe.train.seed for node in plan.runs[3].nodes] == [1, 1]
    with pytest.raises(RecipeError, match=r"^stl: no task is trained on, has a metric and a test part"):
        make_plan({"x": recipe(), "stl": recipe()}, (0,), "x", COUNTS, ["a"], [])


def test_names_that_no_folder_can_have():
    plan = make_plan({"a/b": recipe(), "../a b": recipe("commit")}, (0,), "a/b", COUNTS, [], ["a"])
    assert [node.name for node in plan.nodes] == ["a_b@0", ".._a_b@0"]


def test_another_number_of_tasks_is_refused():
    fewer = recipe("commit").model_copy(update={"tasks": recipe().tasks[:1]})
    with pytest.raises(RecipeError, match=r"^method y: found 1 tasks and 2 in x; all methods must be scored on the"):
        make_plan({"x": recipe(), "y": fewer}, (0,), "x", COUNTS, [], ["a"])
