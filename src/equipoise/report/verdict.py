"""One run's dilemma from its log: balanced, oscillating or biased, as CoMMIT's Section 5 tells them apart.

The paper names the dilemmas by eye, from the curve of kappa: near 1 is balanced, far from 1 is biased, of high variance
about 1 is oscillating. Here each has a threshold, so that two people give one run the same name. Pure functions on the
lines of `metrics.jsonl`; nothing here touches files or draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from statistics import fmean, median, pstdev
from typing import Any

from equipoise.modules.partition import ENCODER, LLM

BURN_IN = 0.25
"""Share of the measurements that is left out, from the first one on: warm-up and the schedule's own approach to its
working point say nothing about where the run then stays."""

FAR = math.log(3)
"""How far log kappa may lie from 0, and how far it may spread. Drift is quadratic in the learning rate, so a kappa of 3
is what a learning rate 1.7 times too high gives: within it, tuning rates by hand would not find the difference. As a
spread it means that the typical measurement is 3 times off the run's own middle."""

SWINGS = 0.25
"""Smallest share of consecutive measurements between which kappa must cross 1 before a wide spread is called
oscillation. Independent noise about 1 crosses half of the time; a slow drift from side to side crosses once."""

LARGEST = 700.0
"""A logarithm beyond which is taken for this: its exponential is a number still. No run that learns comes near it."""

ENOUGH = 5
"""Fewest measurements, after the burn-in, that a verdict rests on."""

BALANCED, OSCILLATING, UNKNOWN = "balanced", "oscillating", "not enough measurements"


@dataclass(frozen=True)
class Verdict:
    """What one run's kappa says.

    Attributes:
        name: `balanced`, `oscillating`, `biased toward the LLM`, `biased toward MODULE` or `not enough measurements`.
        module: the module that a biased run leans toward; None otherwise.
        pair: the two modules of kappa = d_first / d_second. With more than two modules, the worst pair.
        kappa: geometric mean after the burn-in; None without measurements.
        std_log_kappa: standard deviation of log kappa after the burn-in; None without measurements.
        measurements: how many that is.
        advice: one sentence.
        lower: of a biased run, how many times lower the base learning rate of a module would have to be, by module.
    """

    name: str
    module: str | None
    pair: tuple[str, str] | None
    kappa: float | None
    std_log_kappa: float | None
    measurements: int
    advice: str
    lower: Mapping[str, float] = field(default_factory=dict)


def diagnose(lines: Sequence[Mapping[str, Any]]) -> Verdict:
    """Name a run's dilemma.

    After the burn-in: a standard deviation of log kappa above log 3 with a crossing of 1 between at least a quarter of
    consecutive measurements is oscillation; else the median of log kappa beyond log 3 either way is bias; all else is
    balance. Oscillation is asked first, because the median of a run that alternates between two sides is one of the
    two by chance, and the paper's bias favours one module consistently. With more than two modules every pair is
    judged, and bias anywhere outweighs oscillation anywhere.

    Args:
        lines: the lines of `metrics.jsonl` in order; those without a usable kappa are passed over.
    """
    modules, rows = log_drifts(lines)
    rows = rows[int(len(rows) * BURN_IN) :]
    if not rows or len(modules) < 2:
        advice = "No kappa was logged; set balance.modules.measure: true." if lines else "No step was logged yet."
        return Verdict(UNKNOWN, None, None, None, None, 0, advice)
    judged = [_judge(pair, [row[pair[0]] - row[pair[1]] for row in rows]) for pair in _pairs(modules)]
    worst = max(judged, key=lambda found: (found.biased, found.oscillating, found.severity))
    kappa, spread = _exp(worst.mean), worst.spread
    if len(rows) < ENOUGH:
        advice = f"A verdict needs {ENOUGH} measurements after the first quarter; this run has {len(rows)} so far."
        return Verdict(UNKNOWN, None, worst.pair, kappa, spread, len(rows), advice)
    coordinated = _coordinated(lines)
    if worst.biased:
        fast, slow = worst.pair if worst.middle > 0 else worst.pair[::-1]
        advice = _advice_on_bias(worst, fast, slow, _rate_ratio(lines, fast, slow) if coordinated else None)
        lower = _lower(judged, slow, lines, coordinated)
        return Verdict(f"biased toward {called(fast)}", fast, worst.pair, kappa, spread, len(rows), advice, lower)
    name = OSCILLATING if worst.oscillating else BALANCED
    return Verdict(name, None, worst.pair, kappa, spread, len(rows), _advice(worst, coordinated))


def called(module: str) -> str:
    """A module's name in a sentence."""
    return "the LLM" if module == LLM else f"the {module}"


def log_drifts(lines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, float]]]:
    """Each usable measurement as log(d_m / d_S) by module, 0 for the reference S; and the modules, the LLM last.

    The ratios come from kappa and not from the drifts, because a measurement that the coordinator left out logs drifts
    without kappa.
    """
    keys = dict.fromkeys(key for line in lines for key in line if key == "kappa" or key.startswith("kappa/"))
    names = {key: key.removeprefix("kappa").removeprefix("/") or LLM for key in keys}
    if not names:
        return [], []
    drifting = dict.fromkeys(k.removeprefix("drift/") for line in lines for k in line if k.startswith("drift/"))
    fallback = ENCODER if LLM in names.values() else LLM
    reference = next((name for name in drifting if name not in names.values()), fallback)
    modules = sorted({**drifting, reference: None, **dict.fromkeys(names.values())}, key=lambda name: name == LLM)
    rows = []
    for line in lines:
        values = {name: line.get(key) for key, name in names.items()}
        if all(_usable(value) for value in values.values()):
            rows.append({reference: 0.0, **{name: math.log(value) for name, value in values.items() if value}})
    return [name for name in modules if name == reference or name in names.values()], rows


@dataclass(frozen=True)
class _Pair:
    """log kappa of one pair of modules, summed up."""

    pair: tuple[str, str]
    middle: float
    mean: float
    spread: float
    crossings: float

    @property
    def biased(self) -> bool:
        return abs(self.middle) > FAR and not self.oscillating

    @property
    def oscillating(self) -> bool:
        return self.spread > FAR and self.crossings >= SWINGS

    @property
    def severity(self) -> float:
        return self.spread if self.oscillating else abs(self.middle)


def _judge(pair: tuple[str, str], logs: list[float]) -> _Pair:
    steps = list(pairwise(logs))
    crossed = sum(before * after < 0 for before, after in steps)
    return _Pair(pair, median(logs), fmean(logs), pstdev(logs), crossed / len(steps) if steps else 0.0)


def _pairs(modules: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair as (numerator, denominator) of kappa: the later module over the earlier, so the LLM over any other."""
    return [(later, earlier) for earlier, later in combinations(modules, 2)]


def _lower(
    judged: Sequence[_Pair], slow: str, lines: Sequence[Mapping[str, Any]], coordinated: bool
) -> dict[str, float]:
    """How many times lower the base rate of each module must be that outruns `slow`, for equal drifts.

    Drift is quadratic in the learning rate; what a schedule already takes off counts beside it.
    """
    found = {}
    for one in judged:
        fast, behind = one.pair if one.middle > 0 else one.pair[::-1]
        if one.biased and behind == slow:
            factor = _exp(abs(one.middle) / 2 - (math.log(_rate_ratio(lines, fast, slow)) if coordinated else 0.0))
            if factor > 1:
                found[fast] = factor
    return found


def _advice_on_bias(found: _Pair, fast: str, slow: str, rate_ratio: float | None) -> str:
    middle = _exp(found.middle)
    about = f"kappa is about {rounded(middle)}: {called(fast)} outruns {called(slow)}"
    # Drift is quadratic in the learning rate.
    factor = _exp(abs(found.middle) / 2)
    if rate_ratio is None:
        return f"{about}; lower {called(fast)}'s learning rate about {rounded(factor)}x, or use schedule commit-clr."
    # The schedule already runs the two at `rate_ratio`; the base rates would have to differ by both together.
    start = _exp(abs(found.middle) / 2 - math.log(rate_ratio))
    if start <= 1:
        return f"{about}, although the schedule could slow it down; look at the learning rates' figure."
    return (
        f"{about} although the schedule slows it down; start {called(fast)} from a base learning rate about "
        f"{rounded(start)}x lower."
    )


def _advice(found: _Pair, coordinated: bool) -> str:
    about = f"kappa is about {rounded(_exp(found.mean))}"
    if found.oscillating:
        remedy = (
            "give the schedule a longer window"
            if coordinated
            else "lower both learning rates, or use schedule commit-clr"
        )
        return f"{about} on the whole but swings to both sides of 1, by {rounded(_exp(found.spread))}x; {remedy}."
    if found.spread > FAR:
        return f"{about} on the whole but wanders; look at its figure before trusting one number."
    return f"{about} and steady: {called(found.pair[0])} and {called(found.pair[1])} keep pace; nothing to change."


def _coordinated(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a schedule moved the learning rates: factors that take more values than on, off and one constant."""
    seen: dict[str, set[float]] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith("lr_factor/") and _usable(value):
                seen.setdefault(key, set()).add(value)
    return any(len(values) > 2 for values in seen.values())


def _rate_ratio(lines: Sequence[Mapping[str, Any]], fast: str, slow: str) -> float:
    """Geometric mean, over the last three quarters of the run, of the fast module's factor over the slow one's."""
    pairs = [(line.get(f"lr_factor/{fast}"), line.get(f"lr_factor/{slow}")) for line in lines]
    logs = [
        math.log(f) - math.log(s) for f, s in pairs if f is not None and s is not None and _usable(f) and _usable(s)
    ]
    logs = logs[int(len(logs) * BURN_IN) :]
    return _exp(fmean(logs)) if logs else 1.0


def _exp(value: float) -> float:
    """exp, of what is neither too large nor too small to be a number."""
    return math.exp(max(-LARGEST, min(LARGEST, value)))


def _usable(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def rounded(value: float) -> str:
    """Two significant digits, never in powers of ten."""
    return f"{value:,.0f}" if value >= 99.5 else f"{float(f'{value:.2g}'):.10f}".rstrip("0").rstrip(".")
