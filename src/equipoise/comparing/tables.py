"""A comparison's tables as text, for the terminal and for files: each a caption, a header, rows and a note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.comparing.methods import STL
from equipoise.comparing.summary import Cell, Quantity, Summary
from equipoise.comparing.verdict import probability, shown, signed

NOTE = (
    "95 % interval: of the mean over seeds (Student's t). Against {baseline}: with the same seed; p: of the paired "
    "t-test; p (Holm): corrected for all cells of this table. A dash: not known, or no spread to measure (one seed, "
    "or seeds that agree)."
)
RATIOS = (
    "Mean kappa and step time are geometric means, and compared by their quotient (×). Kappa: after the first quarter "
    "of the measurements. Step time: that of all steps over the same without the time spent on balancing."
)
ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """One table; every cell is text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def all_tables(summary: Summary, settings: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Those that have rows, in the order in which they are read."""
    found = [
        overview(summary, settings),
        against(summary.scores, "Scores by task and method", summary.baseline),
        against(summary.training, "Training by method", summary.baseline, RATIOS),
        differing(settings),
    ]
    return [table for table in found if table.rows]


def overview(summary: Summary, settings: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a method: every score, the deltas and the training's numbers; learning rates where they differ."""
    rates = learning_rates(settings)
    cells = (*summary.scores, *summary.deltas, *summary.training)
    quantities = list(dict.fromkeys(cell.quantity for cell in cells))
    rows = [
        (
            method,
            *([rates.get(method, ABSENT)] if rates else []),
            str(seeds_of(summary, method)),
            *(_mean(summary.cell(method, quantity)) for quantity in quantities),
        )
        for method in summary.methods
    ]
    header = ("method", *(["learning rate"] if rates else []), "seeds", *(quantity.title for quantity in quantities))
    note = "Means over seeds, ± half of their 95 % intervals (Student's t). Kappa and step time: geometric means."
    if summary.deltas:
        single = "one model a task (stl)" if summary.single == STL else summary.single
        note += f" Delta I and Delta E: mean improvement and shortfall over tasks against {single}, by seed."
        if summary.left_out:
            note += f" Without {', '.join(summary.left_out)}, of which {summary.single} has no score."
    if summary.undefined:
        note += f" Delta I and Delta E are not defined here ({summary.undefined})."
    return Table("Methods", header, tuple(rows), note)


def against(cells: Sequence[Cell], caption: str, baseline: str, further: str = "") -> Table:
    """A row a quantity and method: its mean, and the difference to the baseline with its test."""
    rows = []
    for quantity in dict.fromkeys(cell.quantity for cell in cells):
        for cell in (cell for cell in cells if cell.quantity == quantity):
            found = cell.difference
            rows.append(
                (
                    quantity.title,
                    cell.method,
                    shown(cell.estimate.mean),
                    interval(cell.estimate.low, cell.estimate.high),
                    ABSENT if found is None else changed(found.mean, quantity),
                    ABSENT if found is None else interval(found.low, found.high, quantity),
                    probability(found.p if found is not None else None) or ABSENT,
                    probability(cell.p_holm) or ABSENT,
                    str(cell.estimate.seeds),
                )
            )
    header = ("quantity", "method", "mean", "95 % interval", f"against {baseline}", "its 95 % interval")
    note = f"{NOTE.format(baseline=baseline)} {further}".strip()
    return Table(caption, (*header, "p", "p (Holm)", "seeds"), tuple(rows), note)


def differing(settings: Mapping[str, Mapping[str, Any]]) -> Table:
    """What the methods' recipes have otherwise than each other: a row a setting."""
    keys = dict.fromkeys(key for found in settings.values() for key in found)
    rows = tuple((key, *(_setting(found.get(key)) for found in settings.values())) for key in keys)
    return Table("What the methods differ in", ("setting", *settings), rows)


def learning_rates(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The methods' learning rates in words, where they differ; empty where they do not."""
    rates: dict[str, list[str]] = {}
    for method, found in settings.items():
        for key, value in found.items():
            if key.startswith("train.learning_rate") and value is not None:
                module = key.removeprefix("train.learning_rate").removeprefix(".")
                rates.setdefault(method, []).append(f"{module} {_setting(value)}".strip())
    return {method: ", ".join(parts) for method, parts in rates.items()}


def seeds_of(summary: Summary, method: str) -> int:
    """With how many seeds a method has been run."""
    return len(summary.seeds.get(method, ()))


def interval(low: float | None, high: float | None, quantity: Quantity | None = None) -> str:
    """Two numbers in brackets, as differences where they are a quantity's; a dash where there are none."""
    if low is None or high is None:
        return ABSENT
    return (
        f"[{shown(low)}, {shown(high)}]"
        if quantity is None
        else f"[{changed(low, quantity)}, {changed(high, quantity)}]"
    )


def changed(value: float, quantity: Quantity) -> str:
    """A difference to the baseline, or a quotient."""
    return f"{shown(value)}×" if quantity.ratio else signed(value)


def _mean(cell: Cell | None) -> str:
    if cell is None:
        return ABSENT
    found = cell.estimate
    if found.high is None or cell.quantity.ratio:  # whose interval is not symmetric
        return shown(found.mean)
    mean, half = shown(found.mean), found.high - found.mean
    return f"{mean} ± {half:.3f}" if mean == f"{found.mean:.3f}" else f"{mean} ± {shown(half)}"


def _setting(value: Any) -> str:
    return ABSENT if value is None else f"{value:g}" if isinstance(value, float) else str(value)
