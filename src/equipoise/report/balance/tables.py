"""The tables of a balance: the figures' numbers, and all the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from equipoise.report.balance.compare import Relative
from equipoise.report.balance.view import VECTORS, BalanceView
from equipoise.report.markup import ABSENT, decimal, table
from equipoise.tasks.contribution import MINI, full_run
from equipoise.tasks.plan import STL

STAR = "* Undefined in part: see the verdict."


def contributions(view: BalanceView) -> str:
    """A row a giving task."""
    header = ["contribution of", *(f"to {view.called(task)}" for task in view.tasks), "one2all (mean to others)"]
    rows = [
        [
            view.called(giver),
            *(
                _value(view.contributions[giver].get(taker), taker in view.undefined_contributions)
                for taker in view.tasks
            ),
            _value(view.one2all.get(giver)),
        ]
        for giver in view.tasks
        if giver in view.contributions
    ]
    received = [_value(view.all2one.get(task), task in view.undefined_contributions) for task in view.tasks]
    rows.append(["all2one (mean from others)", *received, ABSENT])
    return table("Contributions", header, rows, _note(view))


def weights(view: BalanceView) -> str:
    """A row a task: contribution and difficulty, and every weight."""
    header = ["task", "one2all", "all2one", "difficulty", *(f"weight by {name}" for name in VECTORS)]
    rows = [
        [
            view.called(task),
            _value(view.one2all.get(task)),
            _value(view.all2one.get(task), task in view.undefined_contributions),
            _value(view.difficulty.get(task), task in view.undefined_difficulties),
            *(_value(view.weights.get(name, {}).get(task)) for name in VECTORS),
        ]
        for task in view.tasks
    ]
    note = "The final run has the weights by cotbal. A task that is in the mixture but not here has weight 1."
    return table("Weights", header, rows, f"{note} {_note(view)}".strip())


def results(view: BalanceView) -> str:
    """A row a method: every test score, and Delta I and Delta E where they are known."""
    columns = list(
        dict.fromkeys((t, name) for found in view.results.values() for t, sets in found.items() for name in sets)
    )
    methods = list(view.results)
    values: list[list[float | None]] = [
        [*(view.results[method].get(task, {}).get(name) for task, name in columns)] for method in methods
    ]
    best = {cell for j in range(len(columns)) for cell in _best([row[j] for row in values], j + 1, max)}
    rows = [[method, *map(decimal, row)] for method, row in zip(methods, values, strict=True)]
    header = ["method", *(_test_set(view, task, name) for task, name in columns)]
    note = "Test scores; the best of each column is marked. "
    if view.deltas:
        header += ["ΔI, %", "ΔE, %"]
        found = [view.deltas.get(method) for method in methods]
        first, second = [d.delta_i if d else None for d in found], [d.delta_e if d else None for d in found]
        best |= _best(first, len(columns) + 1, max) | _best(second, len(columns) + 2, min)
        for row, method, i, e in zip(rows, methods, first, second, strict=True):
            row += ["0", "0"] if method == STL else [_percent(i), _percent(e)]
        note += (
            "ΔI: mean improvement over one model per task (stl), higher is better; ΔE: mean shortfall, lower is better "
            "(CoTBal, eq. 13 and 14). stl itself is 0 by definition. "
        )
    if view.undefined_improvements:
        note += f"† stl scores 0 on {'; '.join(view.undefined_improvements)}: counted as no improvement. "
    return table("Methods", header, rows, note + _note(view), best)


def relative(view: BalanceView, found: Relative, heading: str) -> str:
    """The radar's numbers, for every method."""
    tasks = list(dict.fromkeys(task for values in found.values.values() for task in values))
    rows = [
        [method, *("–" if task not in values else f"{values[task]:.1f}" for task in tasks)]
        for method, values in found.values.items()
    ]
    return table(heading, ["method", *map(view.called, tasks)], rows, _note(view))


def scores(view: BalanceView) -> str:
    """Validation scores, a row a run: `mini`, then each task's, then others."""
    usual = [MINI, *map(full_run, view.tasks)]
    runs = sorted(view.scores, key=lambda run: usual.index(run) if run in usual else len(usual))
    tasks = list(dict.fromkeys([*view.tasks, *(task for run in runs for task in view.scores[run])]))
    rows = [[run, *(decimal(view.scores[run].get(task)) for task in tasks)] for run in runs]
    note = (
        "A row a run: mini trains on the subset of every task, TASK+mini on all of TASK and the subsets of the others."
    )
    if view.estimated:
        note += " Estimated by the run `budget`, from probabilities of answers: none of these was run."
    return table("Validation scores", ["run", *map(view.called, tasks)], rows, f"{note} {_note(view)}".strip())


def costs(view: BalanceView) -> str:
    """Each node's wall-clock time, in seconds and as a multiple of the final run's; empty where none is known."""
    if not view.costs:
        return ""
    final = _together(view.costs.get(view.final, (None, None)))
    rows = []
    for name, pair in view.costs.items():
        together = _together(pair)
        rows.append([name, *map(_seconds, pair), _seconds(together), _times(together, final)])
    known = [total for pair in view.costs.values() if (total := _together(pair)) is not None]
    rows.append(["all that is known", ABSENT, ABSENT, _seconds(sum(known)), _times(sum(known), final)])
    note = f"Wall-clock seconds of one machine. The last column is in units of {view.final}'s training and scoring."
    if final is None:
        note += f" {view.final}'s own time is not known."
    return table("Cost of each run", ["run", "training", "scoring", "together", f"over {view.final}"], rows, note)


def settings(view: BalanceView) -> str:
    """As the balance wrote them down."""
    rows = [[name.replace("_", " "), str(value)] for name, value in view.settings.items()]
    return table("Settings of the balance", ["setting", "value"], rows)


def _test_set(view: BalanceView, task: str, name: str) -> str:
    mark = "†" if f"task {task}, {name}" in view.undefined_improvements else ""
    return f"{view.called(task)}: {name.replace('_', ' ')}{mark}"


def _best(
    values: Sequence[float | None], column: int, choose: Callable[[Sequence[float]], float]
) -> set[tuple[int, int]]:
    known = [value for value in values if value is not None]
    wanted = choose(known) if len(set(known)) > 1 else None  # where all are equal, none is best
    return {(row, column) for row, value in enumerate(values) if value is not None and value == wanted}


def _note(view: BalanceView) -> str:
    return STAR if view.degenerate else ""


def _value(value: float | None, undefined: bool = False) -> str:
    return "undefined" if undefined else ABSENT if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def _together(pair: tuple[float | None, float | None]) -> float | None:
    """Training and scoring; unknown where either is."""
    return None if pair[0] is None or pair[1] is None else pair[0] + pair[1]


def _seconds(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.1f}"


def _times(value: float | None, final: float | None) -> str:
    return ABSENT if value is None or not final else f"{value / final:.2f}×"
