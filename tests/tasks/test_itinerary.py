"""What a budget buys: what the run of stretches sees, and at which rates."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import RecipeError
from equipoise.recipe import Recipe
from equipoise.tasks.itinerary import READING, Itinerary, make_itinerary
from equipoise.tasks.plan import make_plan

SIZES = {"a": 240, "b": 160, "c": 320, "chat": 80}
VALIDATED = {"a": 64, "b": 5, "c": 100}
TESTED = {"a": 100, "b": 100, "c": 50}


def recipe(budget: float | None = 0.25, mini_fraction: float = 0.125, **train: Any) -> Recipe:
    tasks = [
        {"name": name, "reader": "easy_vqa", "metric": None if name == "chat" else "exact_match"} for name in SIZES
    ]
    balance = {"cotbal": {"budget": budget, "mini_fraction": mini_fraction}}
    return Recipe.model_validate(
        {"model": {"path": "a/b"}, "tasks": tasks, "balance": balance, "train": {"batch_size": 8, **train}}
    )


def made(budget: float = 0.25, **train: Any) -> Itinerary:
    return make_itinerary(recipe(budget, **train), SIZES, VALIDATED, TESTED)


MANY = {task: 50 * size for task, size in SIZES.items()}


def wide() -> Itinerary:
    """With so much data that the budget reads enough for a stretch of each task."""
    return make_itinerary(recipe(), MANY, VALIDATED, TESTED)


def curve() -> Itinerary:
    """With so small a subset that something is left for a stretch of all tasks."""
    return make_itinerary(recipe(mini_fraction=0.03), SIZES, VALIDATED, TESTED)


@given(
    budget=st.floats(0.05, 1),
    batch_size=st.integers(1, 16),
    accumulation=st.integers(1, 4),
    length=st.one_of(st.builds(dict, epochs=st.floats(1, 3)), st.builds(dict, max_steps=st.integers(300, 1000))),
    size=st.sampled_from([1, 3, 50]),
    fraction=st.sampled_from([1 / 32, 0.125, 0.5]),
)
def test_what_it_does_costs_no_more_than_the_budget(budget, batch_size, accumulation, length, size, fraction):
    counts, step = {task: size * count for task, count in SIZES.items()}, batch_size * accumulation
    settings = recipe(budget, fraction, batch_size=batch_size, gradient_accumulation=accumulation, **length)
    final = length["max_steps"] * step if "max_steps" in length else length["epochs"] * sum(counts.values())
    final += READING * sum(TESTED.values())
    least = None
    try:
        found = make_itinerary(settings, counts, VALIDATED, TESTED)
    except RecipeError as refused:
        least = float(str(refused).split()[-3])
    if least is not None:
        assert budget < 1.005 * least
        return
    spent = len(found.draws(seed=0)) + READING * len(found.stretches) * sum(found.answers.values())
    spent += 2 * sum(map(len, found.compares(seed=0).values()))
    assert spent <= budget * final
    assert found.cost == pytest.approx(spent / final)
    assert found.together == step
    assert all(2 <= count <= VALIDATED[task] for task, count in found.answers.items())


def parts_of(found: Itinerary) -> dict[str, list[tuple[str, int]]]:
    """What each stretch sees, the warm start under an empty name."""
    draws, first, parts = found.draws(seed=0), 0, {}
    for name, steps in {"": found.warm, **found.stretches}.items():
        parts[name] = draws[first : first + found.together * steps]
        first += found.together * steps
    assert first == len(draws) == found.together * found.steps
    return parts


@pytest.mark.parametrize("found", [made(), wide(), curve()])
def test_the_warm_start_is_in_the_mixtures_proportions_and_each_stretch_goes_on_from_there(found):
    parts, total = parts_of(found), sum(found.counts.values())
    share = Counter(task for task, _ in parts[""])
    assert all(abs(share[task] - len(parts[""]) * size / total) < 1 for task, size in found.counts.items())
    shared = Counter(parts["mini"])
    for name in [name for name in parts if name not in ("", "mini")]:
        own = Counter(parts[name]) - shared
        assert Counter(parts[name]) == shared + own  # all of the shared ones are there
        assert max(Counter([*parts[""], *shared.elements(), *own.elements()]).values()) == 1  # nothing is seen twice
    assert found.draws(seed=0) != found.draws(seed=1)


def test_where_enough_answers_can_be_read_each_task_has_a_stretch():
    found = wide()
    parts = parts_of(found)
    assert list(found.stretches) == ["mini", "a+mini", "b+mini", "c+mini"]
    assert found.compares(seed=0) == {}
    assert all(count >= min(64, VALIDATED[task]) for task, count in found.answers.items())
    for task in VALIDATED:
        own = Counter(parts[f"{task}+mini"]) - Counter(parts["mini"])
        assert {name for name, _ in own} == {task}
        assert own.total() == found.together * found.own[task]
        few, many = found.seen(task)
        assert few == sum(name == task for name, _ in [*parts[""], *parts["mini"]])
        assert many == few + own.total()
    # The larger a task, the more of it; as the full probe of it would have.
    assert found.own["c"] / found.own["b"] == pytest.approx(2, abs=0.1)


def test_where_not_there_are_as_many_steps_as_the_probe_mini_has_and_gradients():
    found = made()
    parts = parts_of(found)
    assert list(found.stretches) == ["mini"]
    assert found.warm + found.shared == 0.125 * 800 / 8 // 1
    compared = found.compares(seed=0)
    assert {task: len(numbers) for task, numbers in compared.items()} == dict.fromkeys(VALIDATED, found.compared)
    seen = set(parts[""]) | set(parts["mini"])
    assert not seen & {(task, number) for task, numbers in compared.items() for number in numbers}


def test_and_a_stretch_of_all_tasks_where_that_doubles_what_was_seen():
    found = curve()
    parts = parts_of(found)
    assert list(found.stretches) == ["mini", "all"]
    own = Counter(parts["all"]) - Counter(parts["mini"])
    share = Counter(name for name, _ in own.elements())
    assert all(abs(share[task] - own.total() * size / 800) < 1 for task, size in SIZES.items())
    few, many = found.seen("c")
    assert many == few + share["c"]
    assert many >= 2 * few - 1


def test_the_rate_is_constant_and_falls_to_nothing_in_each_stretch():
    found = made()
    rates = [found.rate(step, warmup=0.0) for step in range(found.steps)]
    assert rates[: found.warm] == [1.0] * found.warm
    first = found.warm
    for steps in found.stretches.values():
        assert rates[first : first + steps] == pytest.approx([1 - k / steps for k in range(steps)])
        first += steps
    assert min(rates) > 0
    rising = [found.rate(step, warmup=0.5) for step in range(found.warm)]
    half = round(found.warm / 2)
    assert rising[: half + 1] == pytest.approx([k / half for k in range(half + 1)])
    assert set(rising[half:]) == {1.0}


def test_stretches_end_where_the_next_begins():
    found = wide()
    ends = {name: step for step, name in found.ends.items()}
    assert ends[""] == found.warm
    assert ends["mini"] == found.warm + found.shared
    assert ends["c+mini"] == found.steps


def test_a_budget_that_buys_nothing_is_refused_with_what_the_least_costs():
    with pytest.raises(RecipeError, match=r"^balance\.cotbal\.budget: found 0\.01; .* cost 0\.\d+ final runs$") as told:
        made(0.01)
    least = float(str(told.value).split()[-3])
    assert made(1.01 * least).stretches == {"mini": 1}


# ------------------------------------------------------------------ in the plan


def test_one_run_stands_for_all_probes():
    plan = make_plan(recipe(), SIZES, VALIDATED, TESTED, compare=("ew",))
    budget, final, ew = plan.nodes
    assert (budget.name, budget.scored_on, budget.needs) == ("budget", ("budget",), ())
    assert budget.itinerary == made()
    assert budget.cost <= 0.25
    assert budget.recipe.train.max_steps == budget.itinerary.steps
    assert {task.test for task in budget.recipe.tasks} == {None}
    assert {task.fraction for task in budget.recipe.tasks} == {None}
    assert (final.name, final.needs) == ("cotbal", ("budget",))
    assert ew.name == "ew"


def test_how_weights_follow_from_scores_is_not_in_it():
    one, other = (
        make_plan(
            recipe().model_copy(update={"balance": recipe().balance.model_copy(update={"cotbal": cotbal})}),
            SIZES, VALIDATED, TESTED,
        ).nodes[0]
        for cotbal in (recipe().balance.cotbal, recipe().balance.cotbal.model_copy(update={"temperature": 9.0}))
    )  # fmt: skip
    assert one == other


def test_runs_without_a_budget_are_called_what_they_were_called():
    assert "budget" not in recipe(budget=None).to_yaml()
    assert "budget: 0.25" in recipe().to_yaml()
    assert Recipe.model_validate(recipe(budget=None).model_dump(mode="json")) == recipe(budget=None)


def test_precise_difficulties_and_ablations_need_full_probes():
    with pytest.raises(ValueError, match="budget: difficulty precise needs runs of its own"):
        Recipe.model_validate(
            {**recipe().model_dump(), "balance": {"cotbal": {"budget": 0.25, "difficulty": "precise"}}}
        )
    with pytest.raises(RecipeError, match=r"^--ablations: found with a budget"):
        make_plan(recipe(), SIZES, VALIDATED, TESTED, ablations=True)
