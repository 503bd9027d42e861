"""Whether a method is better than the baseline, in words, with the intervals that say so. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.comparing.summary import LOSS, Cell, Summary

BETTER, WORSE, MIXED = "better", "worse", "better and worse"
NOT_SHOWN, ONE_SEED, NOTHING = "no difference shown", "one seed: nothing can be shown", "nothing to compare"
SIGNIFICANT = 0.05
FEW = 5
"""Fewest seeds after which nothing more is said about there being few."""


@dataclass(frozen=True)
class Verdict:
    """One method against the baseline.

    Attributes:
        kind: `BETTER`, `WORSE`, `MIXED`, `NOT_SHOWN`, `ONE_SEED` or `NOTHING`.
        name: the same, with on how many of several scores.
        sentence: the same, with its evidence.
    """

    method: str
    kind: str
    name: str
    sentence: str


def verdicts(summary: Summary) -> list[Verdict]:
    """One for each method but the baseline: by its scores; by its validation loss where it has none."""
    return [_verdict(summary, method) for method in summary.methods if method != summary.baseline]


def caveat(summary: Summary) -> str:
    """How much the seeds can prove; empty where there are many."""
    seeds = max((cell.estimate.seeds for cell in (*summary.scores, *summary.training)), default=0)
    if seeds == 0 or seeds >= FEW:
        return ""
    if seeds == 1:
        return "One seed has no interval and no test: differences as large as these may be chance. Add seeds."
    return (
        f"{seeds} seeds prove little: a 95 % interval over so few is wide, and a difference that it does not show may "
        "well be there. An interval that leaves out 0 comes by chance in one of 20 cells; p (Holm) corrects for that."
    )


def shown(value: float) -> str:
    """A number with three decimals, or three digits where it is large or small."""
    text = f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.3g}"
    return text.replace("-", "−", 1) if value < 0 else text


def probability(p: float | None) -> str:
    """A p-value; empty where there was no test."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(summary: Summary, method: str) -> Verdict:
    cells = [cell for cell in summary.scores if cell.method == method and cell.difference is not None]
    losses = [cell for cell in summary.training if cell.method == method and cell.quantity == LOSS and cell.difference]
    judged = cells or losses
    if not judged:
        pair, seeds = f"{method} and {summary.baseline}", summary.seeds
        if set(seeds.get(method, ())).isdisjoint(seeds.get(summary.baseline, ())):
            return Verdict(method, NOTHING, NOTHING, f"{pair} have no seed in common.")
        why = "have no quantity in common that says which is better: no score and no validation loss"
        return Verdict(method, NOTHING, NOTHING, f"{pair} {why}.")
    tested = [cell for cell in judged if cell.p_holm is not None]
    up = [cell for cell in tested if _significant(cell) and _improves(cell)]
    down = [cell for cell in tested if _significant(cell) and not _improves(cell)]
    if all(cell.difference is not None and cell.difference.seeds < 2 for cell in judged):
        kind = ONE_SEED
    else:
        kind = MIXED if up and down else BETTER if up else WORSE if down else NOT_SHOWN
    name = kind
    if len(judged) > 1 and kind in (BETTER, WORSE):
        name = f"{kind} on {len(up) or len(down)} of {len(judged)} scores"
    parts = [
        _listed("better on", up),
        _listed("worse on", down),
        _listed("no difference shown on", [cell for cell in judged if cell not in up and cell not in down]),
    ]
    sentence = "; ".join(part for part in parts if part)
    if cells and losses:
        sentence += f". Validation loss: {_against(losses[0])}"
    return Verdict(method, kind, name, f"Against {summary.baseline}: {sentence}.")


def _listed(words: str, cells: Sequence[Cell]) -> str:
    return f"{words} {', '.join(f'{cell.quantity.title} {_against(cell)}' for cell in cells)}" if cells else ""


def _against(cell: Cell) -> str:
    found = cell.difference
    assert found is not None
    interval = "" if found.low is None or found.high is None else f" [{signed(found.low)}, {signed(found.high)}]"
    p = "" if cell.p_holm is None else f", p (Holm) {probability(cell.p_holm)}"
    return f"{signed(found.mean)}{interval}{p}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"+{shown(value)}" if value > 0 else shown(value)


def _significant(cell: Cell) -> bool:
    return cell.p_holm is not None and cell.p_holm < SIGNIFICANT


def _improves(cell: Cell) -> bool:
    assert cell.difference is not None
    return (cell.difference.mean > 0) == (cell.quantity.better == "higher")
