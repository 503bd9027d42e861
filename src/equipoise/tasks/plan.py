"""The runs that CoTBal needs, as a graph: what each trains on, what it is scored on, what must be there before it.

Nothing here reads data, trains or writes; `equipoise.balancing` does. The nodes, by name:

| node | trains on | scored on |
| --- | --- | --- |
| `mini` | the small subset of every task | validation |
| `TASK+mini` | all of a task, the subsets of the others | validation |
| `budget` | instead of these, a little of each: see `itinerary` | validation, on its way |
| `cotbal` | everything, with the weights found | test |
| `stl@TASK`, `stl-mini@TASK` | one task alone, all of it or its subset | validation (`precise`), test (`stl`) |
| `ew`, `tla`, ... | everything, by another weighter | test |
| `cotbal-one2all`, `cotbal-T2`, ... | everything, with the weights of an ablation (Table 3) | test |

Task names hold no plus and no at sign, so no two nodes share a name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from equipoise.errors import RecipeError
from equipoise.recipe import Balance, CoTBal, Recipe, Task, TaskWeighting, WeighterName
from equipoise.tasks.contribution import MINI, full_run
from equipoise.tasks.itinerary import Itinerary, make_itinerary

Split = Literal["validation", "test"]
Scoring = Literal["validation", "test", "loss", "budget"]
"""What a node is scored on: a part of the data; the validation loss alone, where no task has a metric; or on its way,
where it stands for all probes."""
BUDGET: Literal["budget"] = "budget"
FINAL: WeighterName = "cotbal"
STL = "stl"
#: The weighters that CoTBal is compared with, besides one model per task.
WEIGHTERS: tuple[WeighterName, ...] = ("ew", "tla", "rlw", "dwa", "igbv1")
METHODS: tuple[str, ...] = (STL, *WEIGHTERS)
ABLATED_TEMPERATURES = (2.0, 1.0, 0.5)
ABLATED_VECTORS = ("one2all", "all2one", "contribution", "difficulty")
# These make a repository of every run.
PUBLISHING = ("push_to_hub", "hub_")


def alone(task: str, whole: bool = True) -> str:
    """The name of the run on one task without the others: on all of it, or on its subset."""
    return f"{STL}@{task}" if whole else f"{STL}-{MINI}@{task}"


@dataclass(frozen=True)
class Weighting:
    """Which weights a run is trained with, once they can be computed.

    Attributes:
        vector: one of `equipoise.tasks.contribution.task_weights`.
        temperature, alpha, difficulty: as in the recipe's `balance.cotbal`.
    """

    vector: str
    temperature: float
    alpha: float
    difficulty: Literal["real", "precise"]


@dataclass(frozen=True)
class Node:
    """One run.

    Attributes:
        name: of the node.
        recipe: what it trains; without the weights where `weighting` says which they will be.
        scored_on: parts of the data, in this order, or the loss.
        needs: names of the nodes whose scores decide its weights.
        cost: training samples times epochs, or steps, in units of the final run.
        weighting: how its weights are found; None where it needs none.
        itinerary: what it does on its way, where it stands for all probes.
    """

    name: str
    recipe: Recipe
    scored_on: tuple[Scoring, ...]
    cost: float
    needs: tuple[str, ...] = ()
    weighting: Weighting | None = None
    itinerary: Itinerary | None = None

    def weighted(self, weights: Mapping[str, float]) -> Recipe:
        """Its recipe with these weights of tasks; 1 for those that are not named."""
        return weighted(self.recipe, TaskWeighting(FINAL, weights=dict(weights)))


@dataclass(frozen=True)
class Plan:
    """All runs.

    Attributes:
        tasks: those that are balanced, in the recipe's order.
        nodes: each after those it needs.
    """

    tasks: tuple[str, ...]
    nodes: tuple[Node, ...]

    @property
    def cost(self) -> float:
        """Of all nodes, in units of the final run."""
        return sum(node.cost for node in self.nodes)


def check_methods(compare: Sequence[str]) -> None:
    """Find a method that does not exist before any data is read.

    Raises:
        RecipeError: one.
    """
    for method in compare:
        if method not in METHODS:
            raise RecipeError(f"--compare: found {method!r}; allowed: {', '.join(METHODS)}")


def make_plan(
    recipe: Recipe,
    counts: Mapping[str, int],
    validated: Mapping[str, int],
    tested: Mapping[str, int],
    compare: Sequence[str] = (),
    ablations: bool = False,
) -> Plan:
    """Plan what CoTBal, and what it is compared with, must train.

    Args:
        recipe: of the final run; its `balance.cotbal` says how weights are found.
        counts: training samples of each task that has a training part, before the task's `fraction`.
        validated: samples of the validation part of each task with a metric whose validation part has answers.
        tested: samples of the test part of each task with a metric and a test part.
        compare: of `METHODS`.
        ablations: also train with the weights of Table 3's rows.

    Raises:
        RecipeError: a method that does not exist, weights that would not be used, or fewer than two tasks to balance.
    """
    check_methods(compare)
    if recipe.balance.tasks.weights is not None:
        raise RecipeError("balance.tasks.weights: equipoise balance finds the weights itself; leave them out")
    balanced = tuple(task.name for task in recipe.tasks if task.name in counts and task.name in validated)
    if len(balanced) < 2:
        raise RecipeError(
            f"tasks that can be balanced (with a training part, a metric and a validation part that has answers): "
            f"found {', '.join(balanced) or 'none'}; two or more are needed"
        )
    settings = recipe.balance.cotbal
    if ablations and settings.budget is not None:
        raise RecipeError("--ablations: found with a budget; its rows need the full probes: leave one of them out")
    planner = _Planner(recipe, counts, balanced, tested, STL in compare)
    nodes = planner.probes()
    if settings.budget is not None:
        nodes = [planner.budget(make_itinerary(recipe, counts, {task: validated[task] for task in balanced}, tested))]
    if settings.difficulty == "precise":
        nodes += planner.pairs_alone()
    nodes.append(planner.final(FINAL, _weighting(settings)))
    if ablations:
        nodes += planner.ablations(settings)
    for method in compare:
        nodes += planner.single_tasks() if method == STL else [planner.method(method)]
    once: dict[str, Node] = {}
    for node in nodes:
        once.setdefault(node.name, node)  # the first of a model that serves two purposes is scored for both
    return Plan(balanced, tuple(once.values()))


def single_tasks(recipe: Recipe, counts: Mapping[str, int], tested: Collection[str]) -> list[Node]:
    """One model a task that has a test part, each trained on that task alone: what Delta I and Delta E are against.

    Args:
        recipe: of a run on all tasks.
        counts: training samples of each task that has a training part, before the task's `fraction`.
        tested: tasks with a metric and a test part.
    """
    return _Planner(recipe, counts, (), tested, compares_stl=True).single_tasks()


@dataclass(frozen=True)
class _Planner:
    """Makes nodes of a recipe."""

    recipe: Recipe
    counts: Mapping[str, int]
    balanced: tuple[str, ...]
    tested: Collection[str]
    compares_stl: bool

    def probes(self) -> list[Node]:
        """`mini`, and `TASK+mini` for each balanced task."""
        return [self._probe(MINI), *(self._probe(full_run(task), task) for task in self.balanced)]

    def budget(self, made: Itinerary) -> Node:
        """The run that stands for all probes."""
        tasks = [self._untested(task) for task in self.recipe.tasks if task.name in self.counts]
        recipe = weighted(private(self.recipe), TaskWeighting()).model_copy(update={"tasks": tasks})
        train = recipe.train.model_copy(update={"max_steps": made.steps, "eval_steps": None})
        recipe = recipe.model_copy(update={"train": train})
        return Node(BUDGET, recipe, (BUDGET,), made.cost, itinerary=made)

    def pairs_alone(self) -> list[Node]:
        """Each balanced task's subset alone, and all of it alone, for the precise difficulty."""
        return [node for task in self.balanced for node in (self._subset_alone(task), self._alone(task, precise=True))]

    def single_tasks(self) -> list[Node]:
        """One run a task that has a test part, its own or a further one."""
        return [self._alone(name) for name in self.counts if self._tests_of(name)]

    def final(self, name: str, weighting: Weighting) -> Node:
        """A run on everything, with weights that are found first."""
        needs = [MINI, *map(full_run, self.balanced)]
        if self.recipe.balance.cotbal.budget is not None:
            needs = [BUDGET]
        if weighting.difficulty == "precise":
            needs += [alone(task, whole) for task in self.balanced for whole in (False, True)]
        # The main run is the user's model; the others need not be published.
        recipe = self.recipe if name == FINAL else private(self.recipe)
        recipe = weighted(recipe, TaskWeighting(FINAL))
        return Node(name, recipe, self._test(), 1.0, tuple(needs), weighting)

    def method(self, name: str) -> Node:
        """A run on everything by another weighter."""
        weighter = next(weighter for weighter in WEIGHTERS if weighter == name)
        tasks = only_what_concerns(weighter, self.recipe.balance.tasks)
        return Node(name, weighted(private(self.recipe), tasks), self._test(), 1.0)

    def ablations(self, settings: CoTBal) -> list[Node]:
        """The rows of Table 3 that are not the final run itself."""
        usual = _weighting(settings)
        rows = {
            **{f"{FINAL}-T{t:g}": _weighting(settings, temperature=t) for t in ABLATED_TEMPERATURES},
            **{f"{FINAL}-{vector}": _weighting(settings, vector=vector) for vector in ABLATED_VECTORS},
            f"{FINAL}-real": _weighting(settings, difficulty="real"),
            f"{FINAL}-precise": _weighting(settings, difficulty="precise"),
        }
        runs = [self.final(name, weighting) for name, weighting in rows.items() if weighting != usual]
        return [*self.pairs_alone(), *runs]

    def _probe(self, name: str, whole: str | None = None) -> Node:
        """A run whose tasks, all but one, are their subsets; a task without a score is a subset in each."""
        trained = [task for task in self.recipe.tasks if task.name in self.counts]
        tasks = [self._untested(task if task.name == whole else self._subset(task)) for task in trained]
        return self._node(name, tasks, ("validation",))

    def _subset_alone(self, name: str) -> Node:
        return self._node(alone(name, whole=False), [self._untested(self._subset(self._task(name)))], ("validation",))

    def _alone(self, name: str, precise: bool = False) -> Node:
        """One task's model; the same run, with both scores, where it serves difficulty and comparison."""
        tests = self._tests_of(name) if self.compares_stl else ()
        scored_on: tuple[Split, ...] = (*(("validation",) if precise else ()), *(("test",) if tests else ()))
        further = [task for task in self.recipe.tasks if task.test_of == name]
        return self._node(alone(name), [self._task(name), *further], scored_on)

    def _node(self, name: str, tasks: list[Task], scored_on: tuple[Split, ...]) -> Node:
        final, samples = self._samples(self.recipe.tasks), self._samples(tasks)
        recipe = weighted(private(self.recipe), TaskWeighting()).model_copy(update={"tasks": tasks})
        cost = samples / final
        if recipe.train.max_steps is not None:
            steps = max(1, round(recipe.train.max_steps * cost))
            cost = steps / recipe.train.max_steps
            recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"max_steps": steps})})
        return Node(name, recipe, scored_on, cost)

    def _samples(self, tasks: Collection[Task]) -> int:
        return sum(task.share_of(self.counts[task.name]) for task in tasks if task.name in self.counts)

    def _subset(self, task: Task) -> Task:
        fraction = (task.fraction or 1.0) * self.recipe.balance.cotbal.mini_fraction
        return task.model_copy(update={"fraction": fraction})

    def _untested(self, task: Task) -> Task:
        """Without what a run that is scored on validation parts does not read, so that changing it changes nothing."""
        unread: dict[str, Any] = {"test": None, "max_test": None}
        if task.name not in self.balanced:
            unread |= {"validation": None, "max_validation": None}
        return task.model_copy(update=unread)

    def _task(self, name: str) -> Task:
        return next(task for task in self.recipe.tasks if task.name == name)

    def _tests_of(self, name: str) -> tuple[str, ...]:
        """The task itself and its further test sets, those that have a test part."""
        own = [task.name for task in self.recipe.tasks if name in (task.name, task.test_of)]
        return tuple(task for task in own if task in self.tested)

    def _test(self) -> tuple[Split, ...]:
        return ("test",) if self.tested else ()


def _weighting(settings: CoTBal, **changes: Any) -> Weighting:
    usual = {"temperature": settings.temperature, "alpha": settings.alpha, "difficulty": settings.difficulty}
    return Weighting(**{"vector": FINAL, **usual, **changes})


def only_what_concerns(weighter: WeighterName, given: TaskWeighting) -> TaskWeighting:
    """The settings that decide what a weighter does, the others as by default: changing those runs nothing again."""
    settings: dict[str, Any] = {"seed": given.seed} if weighter == "rlw" else {}
    if weighter in ("dwa", "igbv1"):
        settings["window"] = given.window
    if weighter == "dwa":
        settings["temperature"] = given.temperature
    if weighter in ("fixed", "cotbal"):
        settings["weights"] = given.weights
    return TaskWeighting(weighter, **settings)


def weighted(recipe: Recipe, tasks: TaskWeighting) -> Recipe:
    """The recipe with this weighter; how weights are found decides no run but by the weights."""
    return recipe.model_copy(update={"balance": Balance(modules=recipe.balance.modules, tasks=tasks)})


def private(recipe: Recipe) -> Recipe:
    """The recipe of a run that serves a comparison: not published, and not saved twice."""
    arguments = {k: v for k, v in recipe.train.arguments.items() if not k.startswith(PUBLISHING)}
    lora = recipe.model.lora and recipe.model.lora.model_copy(update={"merge": False})
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"lora": lora}),
            "train": recipe.train.model_copy(update={"arguments": arguments}),
        }
    )
