r"""What each task gives the others, how hard each is, and the task weights that follow (CoTBal, eq. 3-11).

Everything comes from validation scores alone. $V_j(r)$ is the score of task j after run r, higher being better (scores
of which a lower one is better enter negated). The runs: `mini`, trained on a small subset of every task, and for each
task i `i+mini`, trained on all of task i and the subsets of the others. A task without a score (pure conversation)
takes no part: it is not among the N tasks here, and whoever trains gives it weight 1.

$$ C_{ij} = \frac{V_j(i+\text{mini}) - V_j(\text{mini})}{V_j(j+\text{mini}) - V_j(\text{mini})} \qquad
   D_i = \frac{V_i(i+\text{mini}) - V_i(\text{mini})}{|V_i(i+\text{mini})|} $$

The paper's eq. 9, $D_i = 1 - V_i(\text{mini}) / V_i(i+\text{mini})$, is the same for positive scores; with the absolute
value, a negated score that rises is also a positive difficulty.

The functions on arrays give nan where a quantity is undefined; `balance_tasks` names the task instead, or sets 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import DataError, RecipeError
from equipoise.tasks.softmax import scaled_softmax
from equipoise.texts import shown

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
OnDegenerate = Literal["error", "zero"]

MINI = "mini"
TEMPERATURE = 0.5  # T and alpha of the paper (section 4.1)
ALPHA = 0.5
ALL = 0.99  # a task with more than this share of a vector counts as having it all


def full_run(task: str) -> str:
    """The name of the run on all of one task and the subsets of the others."""
    return f"{task}+{MINI}"


def contributions(mini: ArrayLike, full: ArrayLike) -> Matrix:
    """C_ij, what training on task i does for task j, relative to what training on task j itself does (eq. 3).

    Args:
        mini: V_j(mini), [N].
        full: V_j(i+mini), [N, N]: a row a run, a column a scored task.

    Returns:
        [N, N]; 1 on the diagonal. A column j is nan where V_j(j+mini) is not above V_j(mini), or where a quotient
        overflows.
    """
    mini_N, full_NN = np.asarray(mini, dtype=np.float64), np.asarray(full, dtype=np.float64)
    with np.errstate(all="ignore"):
        gains_N = full_NN.diagonal() - mini_N
        result_NN = (full_NN - mini_N) / gains_N
    defined_N = (gains_N > 0) & np.isfinite(result_NN).all(axis=0)
    return np.where(defined_N, result_NN, np.nan)


def one2all(contributions: ArrayLike) -> Vector:
    """What task i gives the others on average, mean_{j != i} C_ij (eq. 4).

    Args:
        contributions: C, [N, N].

    Returns:
        [N]; 0 for a task that has no others.
    """
    return _mean_of_others(np.asarray(contributions, dtype=np.float64))


def all2one(contributions: ArrayLike) -> Vector:
    """What task i receives from the others on average, mean_{j != i} C_ji (eq. 6); as `one2all`."""
    return _mean_of_others(np.asarray(contributions, dtype=np.float64).T)


def _mean_of_others(matrix_NN: Matrix) -> Vector:
    count = len(matrix_NN)
    others_NN = np.where(np.eye(count, dtype=bool), 0.0, matrix_NN)
    return (others_NN / max(count - 1, 1)).sum(axis=1)  # divided first: the sum of finite numbers may not be finite


def difficulty(mini: ArrayLike, full: ArrayLike) -> Vector:
    """D_i, the share of its score that a task loses when it is trained on its subset alone (eq. 9).

    Args:
        mini, full: [N]. `real`: V_i(mini) and V_i(i+mini), of runs that the contributions need anyway. `precise`:
            task i's scores after training on its subset and on all of it, each without any other task.

    Returns:
        [N]; nan where the full score is 0, or where the quotient overflows.
    """
    mini_N, full_N = np.asarray(mini, dtype=np.float64), np.asarray(full, dtype=np.float64)
    with np.errstate(all="ignore"):
        result_N = (full_N - mini_N) / np.abs(full_N)
    return np.where(np.isfinite(result_N), result_N, np.nan)


def task_weights(
    one2all: ArrayLike,
    all2one: ArrayLike,
    difficulty: ArrayLike,
    temperature: float = TEMPERATURE,
    alpha: float = ALPHA,
) -> dict[str, Vector]:
    r"""The five weight vectors, by name.

    - `one2all`: $N\,\text{softmax}(C_{one2all}/T)$, more to tasks that help the others (eq. 5)
    - `all2one`: $N\,\text{softmax}(-C_{all2one}/T)$, more to tasks that the others do not help (eq. 7)
    - `contribution`: the mean of the two (eq. 8)
    - `difficulty`: $N\,\text{softmax}(D/T)$, more to tasks that need their whole data (eq. 10)
    - `cotbal`: $\alpha\lambda_{contribution} + (1-\alpha)\lambda_{difficulty}$ (eq. 11)

    Args:
        one2all, all2one, difficulty: [N], finite.
        temperature: T, above 0; the larger, the nearer all weights are to 1.
        alpha: from 0 (difficulty alone) to 1 (contributions alone).

    Returns:
        [N] each; positive, with sum N.

    Raises:
        RecipeError: a temperature or alpha out of range.
    """
    if not 0 < temperature < math.inf:
        raise RecipeError(f"temperature: found {temperature:g}; it must be above 0 and finite")
    if not 0 <= alpha <= 1:
        raise RecipeError(f"alpha: found {alpha:g}; it must be from 0 to 1")
    by_giving = scaled_softmax(one2all, temperature)
    by_receiving = scaled_softmax(-np.asarray(all2one, dtype=np.float64), temperature)
    by_contribution = (by_giving + by_receiving) / 2
    by_difficulty = scaled_softmax(difficulty, temperature)
    return {
        "one2all": by_giving,
        "all2one": by_receiving,
        "contribution": by_contribution,
        "difficulty": by_difficulty,
        "cotbal": alpha * by_contribution + (1 - alpha) * by_difficulty,
    }


def one_takes_all(
    weights: Mapping[str, Mapping[str, float]], contributions: Mapping[str, Mapping[str, float]]
) -> str | None:
    """What to say where one2all or all2one leaves the other tasks next to no weight, or None where neither does.

    Contributions to a task are divided by what it gains by its own data. A gain near 0 makes them huge, and the
    softmax gives all to one task: in `docs/experiments.md` on one seed of five.

    Args:
        weights: by how they are found, by task.
        contributions: C_ij by giving task i, by receiving task j.
    """
    taken = {}
    for way in ("one2all", "all2one"):
        found = weights.get(way, {})
        if len(found) > 1 and max(found.values()) > ALL * sum(found.values()):
            taken[way] = max(found, key=found.__getitem__)
    received: dict[str, list[float]] = {}
    for giver, row in contributions.items():
        for taker, value in row.items():
            if giver != taker:
                received.setdefault(taker, []).append(value)
    if not taken or not received:
        return None
    widest = max(received, key=lambda task: max(map(abs, received[task])))
    low, high = min(received[widest]), max(received[widest])
    return (
        f"all weight by {', all by '.join(f'{way} goes to {task:.60}' for way, task in taken.items())}: contributions "
        f"to {widest:.60}, divided by what it gained by its own data, are {low:.4g} to {high:.4g}; look at another "
        "seed or at more validation answers before you trust them (alpha 0 leaves them out, a higher temperature "
        "evens them out)"
    )


@dataclass(frozen=True)
class TaskBalance:
    """C, D and the weights of a mixture.

    Attributes:
        tasks: N names; every array below is in their order.
        contributions: C, [N, N].
        one2all, all2one, difficulty: [N].
        weights: the five vectors of `task_weights`, [N] each.
        undefined_contributions: tasks j whose column C_.j was undefined and is 0.
        undefined_difficulties: tasks i whose D_i was undefined and is 0.
    """

    tasks: tuple[str, ...]
    contributions: Matrix
    one2all: Vector
    all2one: Vector
    difficulty: Vector
    weights: Mapping[str, Vector]
    undefined_contributions: tuple[str, ...] = ()
    undefined_difficulties: tuple[str, ...] = ()

    @property
    def caution(self) -> str | None:
        """`one_takes_all` of these weights."""
        weights = {name: self._by_task(vector) for name, vector in self.weights.items()}
        rows = {task: self._by_task(row) for task, row in zip(self.tasks, self.contributions, strict=True)}
        return one_takes_all(weights, rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; `degenerate` is there only where something was undefined."""
        plain: dict[str, Any] = {
            "tasks": list(self.tasks),
            "contributions": self.contributions.tolist(),
            "one2all": self._by_task(self.one2all),
            "all2one": self._by_task(self.all2one),
            "difficulty": self._by_task(self.difficulty),
            "weights": {name: self._by_task(vector) for name, vector in self.weights.items()},
        }
        if self.undefined_contributions or self.undefined_difficulties:
            plain["degenerate"] = {
                "contributions": list(self.undefined_contributions),
                "difficulty": list(self.undefined_difficulties),
            }
        return plain

    def _by_task(self, vector: Vector) -> dict[str, float]:
        return dict(zip(self.tasks, vector.tolist(), strict=True))


def balance_tasks(
    scores: Mapping[str, Mapping[str, float]],
    temperature: float = TEMPERATURE,
    alpha: float = ALPHA,
    on_degenerate: OnDegenerate = "error",
    precise: Mapping[str, tuple[float, float]] | None = None,
) -> TaskBalance:
    """From validation scores to weights (Algorithm 1, lines 5 to 19).

    Args:
        scores: by run (`mini`, and `TASK+mini` of every task), by task. The tasks are those of `mini`, in its order.
        temperature, alpha: as for `task_weights`.
        on_degenerate: what an undefined C_.j or D_i does: `error`, or `zero`, which sets it to 0 and flags the task.
        precise: for each task its score after training on its subset alone and on all of it alone; D comes from the
            runs in `scores` (`real`) when None.

    Raises:
        DataError: scores that are missing, left over or not finite; undefined quantities, each with its task and both
            scores, unless `on_degenerate` is `zero`.
        RecipeError: a temperature or alpha out of range.
    """
    tasks = _tasks_of(scores)
    mini_N = np.array([scores[MINI][task] for task in tasks], dtype=np.float64)
    full_NN = np.array([[scores[full_run(run)][task] for task in tasks] for run in tasks], dtype=np.float64)
    small_N, whole_N = mini_N, full_NN.diagonal()
    if precise is not None:
        small_N, whole_N = np.array([_precise_pair(precise, task) for task in tasks], dtype=np.float64).T
    matrix_NN, difficulty_N = contributions(mini_N, full_NN), difficulty(small_N, whole_N)
    no_contribution = [int(j) for j in np.flatnonzero(np.isnan(matrix_NN).any(axis=0))]
    no_difficulty = [int(i) for i in np.flatnonzero(np.isnan(difficulty_N))]
    if on_degenerate == "error":
        reasons = [
            *(
                no_contribution_to(tasks[j], float(mini_N[j]), float(full_NN[j, j])) or _overflow(tasks[j])
                for j in no_contribution
            ),
            *(
                no_difficulty_of(tasks[i], float(small_N[i]), float(whole_N[i])) or _overflow(tasks[i])
                for i in no_difficulty
            ),
        ]
        if reasons:
            raise DataError(f"{'; '.join(reasons):.2000} (--on-degenerate zero takes 0 instead)")
    matrix_NN, difficulty_N = np.nan_to_num(matrix_NN, nan=0.0), np.nan_to_num(difficulty_N, nan=0.0)
    giving_N, receiving_N = one2all(matrix_NN), all2one(matrix_NN)
    return TaskBalance(
        tasks=tasks,
        contributions=matrix_NN,
        one2all=giving_N,
        all2one=receiving_N,
        difficulty=difficulty_N,
        weights=task_weights(giving_N, receiving_N, difficulty_N, temperature, alpha),
        undefined_contributions=tuple(tasks[j] for j in no_contribution),
        undefined_difficulties=tuple(tasks[i] for i in no_difficulty),
    )


def no_contribution_to(task: str, mini: float, full: float) -> str | None:
    """Why nothing's contribution to a task is defined with these two scores, or None where it is.

    A plan can ask as soon as both exist.
    """
    if full - mini > 0:
        return None
    return (
        f"task {task:.60}: score {full} after {full_run(task):.60} is not above {mini} after {MINI}, "
        "so no contribution to it is defined"
    )


def no_difficulty_of(task: str, mini: float, full: float) -> str | None:
    """Why a task's difficulty is not defined with these two scores, or None where it is; likewise."""
    if full != 0:
        return None
    return f"task {task:.60}: score 0 with all of its data ({mini} with its subset), so its difficulty is not defined"


def _overflow(task: str) -> str:
    return f"task {task:.60}: its scores lie so far apart, or so near together, that a quotient of theirs is not finite"


def _listed(names: Iterable[str]) -> str:
    """Some names of many."""
    return f"{', '.join(names):.400}"


def _tasks_of(scores: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """The tasks of a whole and finite set of scores."""
    if not scores.get(MINI):
        raise DataError(f"no scores of run {MINI!r}; found {_listed(list(map(shown, scores))) or 'no run'}")
    tasks = tuple(scores[MINI])
    runs = dict.fromkeys((MINI, *map(full_run, tasks)))
    known = frozenset(tasks)
    for run in runs:
        if run not in scores:
            raise DataError(f"no scores of run {shown(run)}; the tasks {_listed(tasks)} need one each, and {MINI!r}")
    for run in scores:
        if run not in runs:
            raise DataError(f"run {shown(run)} belongs to no task; allowed: {_listed(runs)}")
        for task in (*tasks, *scores[run]):
            if task not in known or task not in scores[run]:
                raise DataError(
                    f"run {shown(run)}: {'unknown' if task not in known else 'no score of'} task {shown(task)}; "
                    f"every run scores {_listed(tasks)}"
                )
            if not math.isfinite(scores[run][task]):
                raise DataError(f"run {shown(run)}: the score of task {task:.60} is {scores[run][task]}, not finite")
    return tasks


def _precise_pair(precise: Mapping[str, tuple[float, float]], task: str) -> tuple[float, float]:
    pair = precise.get(task)
    if pair is None or not all(map(math.isfinite, pair)):
        raise DataError(f"task {task}: its scores after training on it alone are {pair}; two finite ones are needed")
    return pair
