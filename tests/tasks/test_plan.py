"""The graph of runs: which there are, what each trains on and is scored on, what it needs, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from equipoise.errors import RecipeError
from equipoise.recipe import Recipe
from equipoise.tasks.plan import METHODS, Node, Plan, make_plan

#: Training samples of the paper's mixture in thousands (Table 1).
PAPER = {
    "sharegpt4v": 98, "vqav2": 83, "gqa": 72, "chartqa": 18, "ocrvqa": 80, "refcoco-caption": 41, "refcoco-bbox": 41,
    "sharegpt": 41,
}  # fmt: skip
TOTAL, SCORED = 474, 433


def recipe(*names: str, cotbal: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """Tasks of packaged data; `sharegpt` and `chat` are conversation, `NAME-again` a further test set of NAME."""
    tasks: list[dict[str, Any]] = []
    for name in names:
        task: dict[str, Any] = {"name": name, "reader": "easy_vqa", "metric": "exact_match"}
        if name in ("sharegpt", "chat"):
            task |= {"metric": None, "validation": None, "test": None}
        if name.endswith("-again"):
            task |= {"train": None, "validation": None, "test_of": name.removesuffix("-again")}
        tasks.append(task)
    balance = {"cotbal": cotbal or {}, **sections.pop("balance", {})}
    content = {"model": {"path": "a/b"}, "tasks": tasks, "balance": balance, **sections}
    return Recipe.model_validate(content)


def plan(made: Recipe, counts: dict[str, int] | None = None, **settings: Any) -> Plan:
    """With 32 samples a task, and all that have a metric scored on all parts, unless said otherwise."""
    counts = counts or {task.name: 32 for task in made.tasks if task.train is not None}
    validated = [task.name for task in made.tasks if task.metric is not None and task.validation is not None]
    tested = [task.name for task in made.tasks if task.metric is not None and task.test is not None]
    given = {"validated": validated, "tested": tested, **settings}
    sizes = {part: dict.fromkeys(given.pop(part), 16) for part in ("validated", "tested")}
    return make_plan(made, counts, **sizes, **given)


def nodes(made: Plan) -> dict[str, Node]:
    return {node.name: node for node in made.nodes}


def fractions(node: Node) -> dict[str, float | None]:
    return {task.name: task.fraction for task in node.recipe.tasks}


# ------------------------------------------------------------------ the papers' mixture


def test_the_papers_mixture_costs_what_the_paper_says():
    made = plan(recipe(*PAPER), {name: 1000 * size for name, size in PAPER.items()})
    assert made.tasks == tuple(name for name in PAPER if name != "sharegpt")
    assert [node.name for node in made.nodes] == ["mini", *(f"{name}+mini" for name in made.tasks), "cotbal"]
    costs = {name: node.cost for name, node in nodes(made).items()}
    assert costs["mini"] == pytest.approx(1 / 32, rel=1e-3)
    assert costs["vqav2+mini"] == pytest.approx((83 + (TOTAL - 83) / 32) / TOTAL, rel=1e-3)
    assert costs["cotbal"] == 1
    # The paper's limitations count 1 + (N - 1) / 32 runs for N probes; ShareGPT is nobody's whole, `mini` is one more.
    probes = 7 / 32 + (31 / 32) * SCORED / TOTAL
    assert sum(costs.values()) == pytest.approx(1 + 1 / 32 + probes, rel=1e-3)
    assert sum(costs.values()) == pytest.approx(2.135, abs=0.001)
    assert made.cost == sum(costs.values())


def test_probes_are_scored_on_validation_parts_and_the_final_run_on_test_parts():
    made = nodes(plan(recipe("a", "b", "chat")))
    assert {name: node.scored_on for name, node in made.items()} == {
        "mini": ("validation",), "a+mini": ("validation",), "b+mini": ("validation",), "cotbal": ("test",),
    }  # fmt: skip
    assert made["cotbal"].needs == ("mini", "a+mini", "b+mini")
    assert made["mini"].needs == made["a+mini"].needs == ()


def test_a_probe_has_the_whole_of_one_task_and_the_subsets_of_all_others():
    made = nodes(plan(recipe("a", "b", "chat", "a-again")))
    mini = 1 / 32
    assert fractions(made["mini"]) == {"a": mini, "b": mini, "chat": mini}
    assert fractions(made["b+mini"]) == {"a": mini, "b": None, "chat": mini}
    assert fractions(made["cotbal"]) == dict.fromkeys(("a", "b", "chat", "a-again"))


def test_a_probe_reads_no_test_part_and_no_validation_part_that_decides_nothing():
    made = recipe("a", "b", "secret")
    limits = {"max_validation": 6, "max_test": 5}
    made = made.model_copy(update={"tasks": [task.model_copy(update=limits) for task in made.tasks]})
    probe = nodes(plan(made, validated=["a", "b"]))["a+mini"]
    # A bound of a part that is not read would run the probe again when it changes.
    assert all((task.test, task.max_test) == (None, None) for task in probe.recipe.tasks)
    assert {task.name: (task.validation, task.max_validation) for task in probe.recipe.tasks} == {
        "a": ("validation", 6), "b": ("validation", 6), "secret": (None, None),
    }  # fmt: skip


@pytest.mark.parametrize(("fraction", "samples"), [(1 / 32, 1), (0.25, 8), (0.75, 24)])
def test_the_subset_is_as_large_as_the_setting_says(fraction, samples):
    made = nodes(plan(recipe("a", "b", cotbal={"mini_fraction": fraction})))
    assert fractions(made["mini"]) == {"a": fraction, "b": fraction}
    assert made["mini"].cost == 2 * samples / 64
    assert made["a+mini"].cost == (32 + samples) / 64


def test_a_subset_has_at_least_one_sample_and_is_a_share_of_the_share_that_is_trained_on():
    made = recipe("a", "b")
    shared = made.model_copy(update={"tasks": [made.tasks[0].model_copy(update={"fraction": 0.5}), made.tasks[1]]})
    planned = nodes(plan(shared, {"a": 64, "b": 3}))
    assert fractions(planned["mini"]) == {"a": 1 / 64, "b": 1 / 32}
    assert fractions(planned["a+mini"]) == {"a": 0.5, "b": 1 / 32}
    assert planned["mini"].cost == pytest.approx(2 / 35)
    assert planned["a+mini"].cost == pytest.approx(33 / 35)


# ------------------------------------------------------------------ which tasks are balanced


def test_tasks_without_a_score_or_without_training_are_not_balanced():
    made = recipe("a", "b", "chat", "secret", "a-again")
    counts = {"a": 10, "b": 10, "chat": 10, "secret": 10}
    assert plan(made, counts, validated=["a", "b", "a-again"]).tasks == ("a", "b")


@pytest.mark.parametrize(("validated", "found"), [([], "none"), (["a"], "a")])
def test_fewer_than_two_are_refused(validated, found):
    with pytest.raises(RecipeError, match=rf"^tasks that can be balanced .*: found {found}; two or more are needed$"):
        plan(recipe("a", "chat"), validated=validated)


# ------------------------------------------------------------------ steps


def test_steps_are_scaled_by_the_share_of_samples_and_never_none():
    counts = {"a": 640, "b": 320}
    made = nodes(plan(recipe("a", "b", train={"max_steps": 100}), counts))
    steps = {name: node.recipe.train.max_steps for name, node in made.items()}
    assert steps == {"mini": 3, "a+mini": 68, "b+mini": 35, "cotbal": 100}  # of 960 samples 30, 650 and 340
    assert made["a+mini"].cost == 0.68
    few = nodes(plan(recipe("a", "b", train={"max_steps": 2}), counts))
    assert few["mini"].recipe.train.max_steps == 1
    assert few["mini"].cost == 0.5


def test_without_max_steps_epochs_stay():
    made = nodes(plan(recipe("a", "b", train={"epochs": 3})))
    assert all(node.recipe.train.max_steps is None for node in made.values())
    assert {node.recipe.train.epochs for node in made.values()} == {3}


# ------------------------------------------------------------------ weights


def test_the_final_run_gets_its_weights_later_and_nothing_else_changes():
    final = nodes(plan(recipe("a", "b", cotbal={"temperature": 0.7, "alpha": 0.2})))["cotbal"]
    assert (final.weighting.vector, final.weighting.temperature, final.weighting.alpha) == ("cotbal", 0.7, 0.2)
    weighted = final.weighted({"a": 1.5, "b": 0.5})
    assert weighted.balance.tasks.weighter == "cotbal"
    assert weighted.balance.tasks.weights == {"a": 1.5, "b": 0.5}
    assert weighted.tasks == final.recipe.tasks
    assert weighted.train == final.recipe.train


def test_how_weights_are_found_is_in_no_run_but_in_the_weights():
    made = [plan(recipe("a", "b", cotbal=cotbal)) for cotbal in ({}, {"temperature": 9, "on_degenerate": "zero"})]
    for first, second in zip(*(each.nodes for each in made), strict=True):
        assert first.recipe == second.recipe


def test_probes_weight_all_tokens_equally_whatever_the_recipe_says():
    made = recipe("a", "b", balance={"tasks": {"weighter": "dwa"}, "modules": {"schedule": "commit", "window": 7}})
    for node in plan(made).nodes[:3]:
        assert node.recipe.balance.tasks.weighter == "ew"
        assert node.recipe.balance.modules.window == 7


def test_weights_in_the_recipe_are_refused():
    given = recipe("a", "b", balance={"tasks": {"weighter": "fixed", "weights": {"a": 2}}})
    with pytest.raises(RecipeError, match=r"^balance\.tasks\.weights: .*leave them out$"):
        plan(given)


# ------------------------------------------------------------------ precise, comparison, ablations


def test_precise_trains_each_task_alone_on_its_subset_and_on_all_of_it():
    made = plan(recipe("a", "b", "chat", cotbal={"difficulty": "precise"}))
    assert [node.name for node in made.nodes] == [
        "mini", "a+mini", "b+mini", "stl-mini@a", "stl@a", "stl-mini@b", "stl@b", "cotbal",
    ]  # fmt: skip
    found = nodes(made)
    assert fractions(found["stl-mini@a"]) == {"a": 1 / 32}
    assert fractions(found["stl@a"]) == {"a": None}
    assert found["stl@a"].scored_on == found["stl-mini@a"].scored_on == ("validation",)
    assert found["stl@b"].cost == pytest.approx(32 / 96)
    assert set(found["cotbal"].needs) == set(found) - {"cotbal"}


def test_the_compared_methods_train_on_everything_and_stl_on_one_task_each():
    made = plan(recipe("a", "b", "chat", "a-again"), compare=METHODS)
    found = nodes(made)
    assert list(found)[4:] == ["stl@a", "stl@b", "ew", "tla", "rlw", "dwa", "igbv1"]
    for name in ("ew", "tla", "rlw", "dwa", "igbv1"):
        assert found[name].recipe.balance.tasks.weighter == name
        assert found[name].scored_on == ("test",)
        assert (found[name].cost, found[name].needs) == (1, ())
        assert found[name].recipe.tasks == found["cotbal"].recipe.tasks
    assert [task.name for task in found["stl@a"].recipe.tasks] == ["a", "a-again"]
    assert [task.name for task in found["stl@b"].recipe.tasks] == ["b"]
    assert found["stl@a"].scored_on == ("test",)


def test_one_model_serves_difficulty_and_comparison():
    made = plan(recipe("a", "b", cotbal={"difficulty": "precise"}), compare=["stl"])
    names = [node.name for node in made.nodes]
    assert names == ["mini", "a+mini", "b+mini", "stl-mini@a", "stl@a", "stl-mini@b", "stl@b", "cotbal"]
    assert nodes(made)["stl@a"].scored_on == ("validation", "test")


def test_a_weighters_settings_are_in_its_run_alone():
    given = {"tasks": {"window": 3, "temperature": 5.0, "seed": 8}}
    made = nodes(plan(recipe("a", "b", balance=given), compare=METHODS))
    settings = {name: made[name].recipe.balance.tasks for name in ("ew", "rlw", "dwa", "igbv1")}
    assert (settings["dwa"].window, settings["dwa"].temperature, settings["dwa"].seed) == (3, 5.0, 0)
    assert (settings["igbv1"].window, settings["igbv1"].temperature) == (3, 2.0)
    assert (settings["rlw"].seed, settings["rlw"].window) == (8, None)
    assert (settings["ew"].seed, settings["ew"].window, settings["ew"].temperature) == (0, None, 2.0)


def test_the_ablations_are_the_other_rows_of_table_3():
    made = plan(recipe("a", "b"), ablations=True)
    found = {name: node.weighting for name, node in nodes(made).items() if node.weighting is not None}
    assert list(found) == [
        "cotbal", "cotbal-T2", "cotbal-T1", "cotbal-one2all", "cotbal-all2one", "cotbal-contribution",
        "cotbal-difficulty", "cotbal-precise",
    ]  # fmt: skip
    assert [weighting.temperature for weighting in found.values()] == [0.5, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert found["cotbal-all2one"].vector == "all2one"
    assert found["cotbal-precise"].difficulty == "precise"
    alone = {"stl-mini@a", "stl@a", "stl-mini@b", "stl@b"}
    assert alone <= set(nodes(made)["cotbal-precise"].needs)
    assert not alone & set(nodes(made)["cotbal-T2"].needs)
    assert "cotbal-real" in nodes(plan(recipe("a", "b", cotbal={"difficulty": "precise"}), ablations=True))


def test_every_node_comes_after_those_it_needs_and_names_differ():
    for difficulty in ("real", "precise"):
        made = plan(recipe("a", "b", "chat", cotbal={"difficulty": difficulty}), compare=METHODS, ablations=True)
        seen: set[str] = set()
        for node in made.nodes:
            assert seen.issuperset(node.needs)
            assert node.name not in seen
            seen.add(node.name)


def test_an_unknown_method_is_refused():
    with pytest.raises(RecipeError, match=r"^--compare: found 'cotball'; allowed: stl, ew, tla, rlw, dwa, igbv1$"):
        plan(recipe("a", "b"), compare=["ew", "cotball"])


def test_without_test_parts_nothing_is_scored_on_them():
    made = nodes(plan(recipe("a", "b"), tested=[], compare=["stl", "ew"]))
    assert made["cotbal"].scored_on == made["ew"].scored_on == ()
    assert "stl@a" not in made


def test_only_the_final_run_is_published():
    train = {"arguments": {"push_to_hub": True, "hub_model_id": "me/it", "adam_beta2": 0.99}}
    made = recipe("a", "b", train=train, model={"path": "a/b", "lora": {"merge": True}})
    for name, node in nodes(plan(made, compare=["ew"], ablations=True)).items():
        final = name == "cotbal"
        assert node.recipe.train.arguments == (train["arguments"] if final else {"adam_beta2": 0.99})
        assert node.recipe.model.lora.merge is final
