"""CoMMIT's claims, each as tests on what the runs of `experiments.commit` measured, with their verdict.

A claim says which way a quantity goes from one method to another. Every pair of methods on every cell is a test, paired
by seed; p is corrected by Holm over the claim's tests. A claim is *confirmed* where a test or more is significant its
way and none the other way, *refuted* where one is the other way, else *open* (docs/experiments.md, Protocol).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from equipoise.comparing.measured import Measured
from equipoise.comparing.statistics import Difference, difference, holm
from equipoise.comparing.verdict import SIGNIFICANT, shown, signed
from equipoise.modules.partition import LLM
from experiments.commit_plan import BASELINE, CELLS, ENCODER, EXPERIMENTS
from experiments.commit_results import SMOOTH, Results, losses_of, score_on, speeds, values
from experiments.tables import Values, row

Quantity = Callable[[Results, str, str], Mapping[str, Values]]
"""Of (results, experiment, cell): by method, by seed."""
OURS = ("commit-clr", "commit")
PAPERS = ("commit-clr, paper's form", "commit, paper's form")


# ---------------------------------------------------------------------- quantities


def of_run(read: Callable[[Measured], float | None]) -> Quantity:
    """A number that stands in the comparison."""
    return lambda results, experiment, cell: {
        method: values(runs, read) for method, runs in results.runs(experiment, cell).items()
    }


def of_log(key: str) -> Quantity:
    """The geometric mean of what a run logged after its first quarter; `{encoder}` stands for the cell's."""

    def read(results: Results, experiment: str, cell: str) -> Mapping[str, Values]:
        name = key.format(encoder=ENCODER[CELLS[cell].stack])
        found: dict[str, Values] = {}
        for method, runs in results.runs(experiment, cell).items():
            for seed, run in runs.items():
                lines = results.log(experiment, cell, run)
                logs = [math.log(line[name]) for line in lines[len(lines) // 4 :] if line.get(name, 0) > 0]
                if logs:
                    found.setdefault(method, {})[seed] = math.exp(fmean(logs))
        return found

    return read


def final_loss(results: Results, experiment: str, cell: str) -> Mapping[str, Values]:
    """The training loss, mean of the last steps."""
    return {
        method: {seed: fmean(losses_of(run)[-SMOOTH:]) for seed, run in runs.items() if run.log}
        for method, runs in results.recorded(experiment, cell).items()
    }


def score(results: Results, experiment: str, cell: str) -> Mapping[str, Values]:
    """The test score."""
    return of_run(score_on(cell))(results, experiment, cell)


SPREAD = of_run(lambda run: run.std_log_kappa)
BIAS = of_run(lambda run: abs(math.log(run.kappa)) if run.kappa else None)
VALIDATION = of_run(lambda run: run.validation_loss)


# ---------------------------------------------------------------------- claims


@dataclass(frozen=True)
class Claim:
    """A quantity that goes one way.

    Attributes:
        text: what the paper says, and where.
        measured: the quantity, as the page names it.
        experiment: whose runs are looked at.
        pairs: of methods, the claim's own first.
        quantity: that is compared.
        higher: whether the claim says that it is higher with the first of a pair.
        ratio: whether logarithms are tested.
    """

    text: str
    measured: str
    experiment: str
    pairs: Sequence[tuple[str, str]]
    quantity: Quantity
    higher: bool
    ratio: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What its row begins with."""
        return self.text, self.measured, self.experiment

    def tests(self, results: Results) -> list[tuple[Difference, float | None]]:
        """Paired differences of all pairs on all cells, each with its p by Holm."""
        found = []
        for cell in EXPERIMENTS[self.experiment].cells:
            by_method = self.quantity(results, self.experiment, cell)
            for own, other in self.pairs:
                seeds = [seed for seed in by_method.get(own, {}) if seed in by_method.get(other, {})]
                if seeds:
                    ours, theirs = ([by_method[name][seed] for seed in seeds] for name in (own, other))
                    found.append(difference(ours, theirs, self.ratio))
        return list(zip(found, holm([one.p for one in found]), strict=True))


def against(methods: Sequence[str], other: str = BASELINE) -> list[tuple[str, str]]:
    """Pairs of several methods with one."""
    return [(method, other) for method in methods]


FASTER = against(("encoder-lr-up", "llm-lr-up"))


def of_methods(experiment: str, clr: str = OURS[0], commit: str = OURS[1]) -> list[Claim]:
    """What is said of CLR and of CoMMIT whole."""
    balanced, regularised = against((clr, commit)), [(commit, clr)]
    return [
        Claim("CLR steadies kappa (Fig. 4)", "std of log kappa", experiment, balanced, SPREAD, False),
        Claim("CLR brings kappa nearer to 1 (Fig. 4)", "absolute log kappa", experiment, balanced, BIAS, False),
        Claim("the regulariser helps", "validation loss", experiment, regularised, VALIDATION, False),
        Claim("faster convergence (Figs. 5, 6)", "steps to `constant`'s loss", experiment, balanced, speeds, False),
        Claim("better scores (Table 1)", "test score", experiment, balanced, score, True),
    ]


CLAIMS = (
    Claim("one rate raised steadies kappa (Obs. 5.1)", "std of log kappa", "curves", FASTER, SPREAD, False),
    Claim("and slows convergence (Obs. 5.2)", "final training loss", "curves", FASTER, final_loss, True),
    *(
        Claim(f"and shrinks gradients: {name}", "‖G‖ / ‖θ‖", "curves", FASTER, of_log(key), False, True)
        for name, key in (("encoder", "grad_norm_relative/{encoder}"), (LLM, f"grad_norm_relative/{LLM}"))
    ),
    *(
        Claim(f"the regulariser enlarges {what}: {name}", what, "curves", [(OURS[1], OURS[0])], of_log(key), True, True)
        for what, prefix in (("gradients", "grad_norm/"), ("updates", "theory/update_norm/"), ("drifts", "drift/"))
        for name, key in (("encoder", prefix + "{encoder}"), (LLM, prefix + LLM))
    ),
    *of_methods("table1"),
    *of_methods("one-rate"),
    *of_methods("paper-form", *PAPERS),
    *of_methods("backbones"),
)
#: The claim that a run alone can refute; whose runs are asked whether lambda is above 1, and the methods.
GROWS = ("lambda > 1 throughout (Th. A.3)", "share of measured steps")
GROWING = {"table1": OURS, "paper-form": PAPERS, "backbones": OURS}


#: What the rows begin with, in their order.
KEYS = [*(claim.key for claim in CLAIMS), *((*GROWS, experiment) for experiment in GROWING)]


def verdict(claim: Claim, tests: Sequence[tuple[Difference, float | None]]) -> tuple[int, int, str]:
    """Significant tests its way, those the other way, and what follows."""
    same = 1 if claim.ratio else 0
    sides = [(one.mean > same) == claim.higher for one, p in tests if p is not None and p < SIGNIFICANT]
    its, other = sum(sides), len(sides) - sum(sides)
    return its, other, "refuted" if other else "confirmed" if its else "open"


def claims_rows(results: Results) -> list[str]:
    """Every claim of which there are runs, as rows of Markdown."""
    rows = []
    for claim in CLAIMS:
        tests = claim.tests(results)
        if tests:
            means = sorted(one.mean for one, _ in tests)
            its, other, says = verdict(claim, tests)
            show = (lambda value: f"×{shown(value)}") if claim.ratio else signed
            span = " to ".join(dict.fromkeys((show(means[0]), show(means[-1]))))
            counts = map(str, (sum(p is not None for _, p in tests), its, other))
            rows.append(row([*claim.key, span, *counts, says]))
    return [*rows, *(row(one) for experiment in GROWING if (one := growing(results, experiment)))]


def growing(results: Results, experiment: str) -> list[str]:
    """lambda > 1 throughout (Theorem A.3): one step where it is not refutes it."""
    shares = []
    for cell in EXPERIMENTS[experiment].cells:
        runs = results.runs(experiment, cell)
        for run in (run for method in GROWING[experiment] for run in runs.get(method, {}).values()):
            found = [line["theory/lambda"] for line in results.log(experiment, cell, run) if "theory/lambda" in line]
            shares += [fmean(one > 1 for one in found)] if found else []
    if not shares:
        return []
    span = f"{shown(min(shares))} to {shown(max(shares))}"
    whole = sum(share == 1 for share in shares)
    counts = map(str, (len(shares), whole, len(shares) - whole))
    verdict = "confirmed" if whole == len(shares) else "refuted"
    return [*GROWS, experiment, span, *counts, verdict]
