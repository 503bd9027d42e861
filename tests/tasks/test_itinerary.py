"""What a budget buys: what the run of stretches sees, at which rates, and what is made of what it reads."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import RecipeError
from equipoise.recipe import Recipe
from equipoise.tasks.itinerary import READING, Itinerary, at_full_size, full_scores, itinerary
from equipoise.tasks.plan import make_plan

SIZES = {"a": 240, "b": 160, "c": 320, "chat": 80}
VALIDATED = {"a": 64, "b": 5, "c": 100}
TESTED = {"a": 100, "b": 100, "c": 50}


def recipe(budget: float | None = 0.25, **train: Any) -> Recipe:
    tasks = [
        {"name": name, "reader": "easy_vqa", "metric": None if name == "chat" else "exact_match"} for name in SIZES
    ]
    balance = {"cotbal": {"budget": budget, "mini_fraction": 0.125}}
    return Recipe.model_validate(
        {"model": {"path": "a/b"}, "tasks": tasks, "balance": balance, "train": {"batch_size": 8, **train}}
    )


def made(budget: float = 0.25, **train: Any) -> Itinerary:
    return itinerary(recipe(budget, **train), SIZES, VALIDATED, TESTED)


@given(
    budget=st.floats(0.1, 1),
    batch_size=st.integers(1, 16),
    accumulation=st.integers(1, 4),
    length=st.one_of(st.builds(dict, epochs=st.floats(1, 3)), st.builds(dict, max_steps=st.integers(300, 1000))),
)
def test_what_it_does_costs_no_more_than_the_budget(budget, batch_size, accumulation, length):
    found = made(budget, batch_size=batch_size, gradient_accumulation=accumulation, **length)
    step = batch_size * accumulation
    final = length["max_steps"] * step if "max_steps" in length else length["epochs"] * sum(SIZES.values())
    final += READING * sum(TESTED.values())
    spent = len(found.draws(seed=0)) + READING * 4 * sum(found.answers.values())
    assert spent <= budget * final
    assert found.cost == pytest.approx(spent / final)
    assert spent + found.together > budget * final  # and no step more would do
    assert found.together <= max(1, round(step * budget))
    assert all(2 <= count <= VALIDATED[task] for task, count in found.answers.items())


def test_the_warm_start_is_in_the_mixtures_proportions_and_each_stretch_goes_on_from_there():
    found = made()
    assert (found.batch_size, found.gradient_accumulation) == (2, 1)
    draws, first = found.draws(seed=0), found.warm * 2
    warm = draws[:first]
    share = Counter(task for task, _ in warm)
    assert {task: abs(share[task] - first * size / 800) < 1 for task, size in SIZES.items()} == dict.fromkeys(
        SIZES, True
    )
    parts = {}
    for name, steps in found.stretches.items():
        parts[name] = draws[first : first + 2 * steps]
        first += 2 * steps
    assert first == len(draws) == 2 * found.steps
    assert list(parts) == ["mini", "a+mini", "b+mini", "c+mini"]
    shared = Counter(parts["mini"])
    for task in VALIDATED:
        own = Counter(parts[f"{task}+mini"]) - shared
        assert Counter(parts[f"{task}+mini"]) == shared + own  # all of the shared ones are there
        assert {name for name, _ in own} == {task}
        assert own.total() == 2 * found.own[task]
        assert max(Counter([*warm, *shared.elements(), *own.elements()]).values()) == 1  # nothing is seen twice
        few, many = found.seen(task)
        assert few == sum(name == task for name, _ in [*warm, *parts["mini"]])
        assert many == few + 2 * found.own[task]
    # The larger a task, the more of it; as the full probe of it would have.
    assert found.own["c"] / found.own["b"] == pytest.approx(2, abs=0.5)
    assert draws == found.draws(seed=0)
    assert draws != found.draws(seed=1)


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
    found = made()
    ends = {name: step for step, name in found.ends.items()}
    assert ends[""] == found.warm
    assert ends["mini"] == found.warm + found.shared
    assert ends["c+mini"] == found.steps


def test_a_budget_that_buys_nothing_is_refused_with_what_the_least_costs():
    with pytest.raises(
        RecipeError, match=r"^balance\.cotbal\.budget: found 0\.01; .* cost (0\.\d+) final runs$"
    ) as told:
        made(0.01)
    least = float(str(told.value).split()[-3])
    assert made(1.01 * least).own == {"a": 1, "b": 1, "c": 1}


# ------------------------------------------------------------------ what is made of it


def test_errors_are_powers_of_the_number_of_samples():
    # 1 - V = 0.8 n^-1/2 from n = 1: 0.8, at 4 times as many 0.4, at 16 times 0.2.
    assert at_full_size(0.2, 0.6, (1, 4), growth=16) == pytest.approx(0.8)
    assert at_full_size(0.2, 0.6, (10, 40), growth=4) == pytest.approx(0.6)  # as read
    assert at_full_size(0.2, 0.2, (3, 5), growth=32) == pytest.approx(0.2)
    assert at_full_size(0.6, 0.2, (1, 2), growth=32) == 0.0  # nothing is below
    assert at_full_size(1.0, 0.9, (1, 2), growth=32) == 0.9  # there was nothing to learn
    assert at_full_size(0.5, 1.0, (1, 2), growth=2) == 1.0


def test_the_table_is_of_the_full_probes_and_each_row_grows_by_its_own_task():
    found = made()
    read = {
        "mini": {"a": 0.5, "b": 0.4, "c": 0.3},
        "a+mini": {"a": 0.6, "b": 0.5, "c": 0.25},
        "b+mini": {"a": 0.5, "b": 0.7, "c": 0.3},
        "c+mini": {"a": 0.4, "b": 0.4, "c": 0.5},
    }
    scores = full_scores(read, found)
    assert scores["mini"] == read["mini"]
    for giver in VALIDATED:
        few, many = found.seen(giver)
        power = math.log(8) / math.log(many / few)
        for task, base in read["mini"].items():
            error = (1 - base) * ((1 - read[f"{giver}+mini"][task]) / (1 - base)) ** power
            assert scores[f"{giver}+mini"][task] == pytest.approx(1 - error)


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
