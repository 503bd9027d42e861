"""The page of all tables of CoMMIT, made of what is recorded; what is not recorded stands as it did."""

from __future__ import annotations

import re

from experiments.commit_claims import KEYS, claims_rows
from experiments.commit_plan import EXPERIMENTS
from experiments.commit_results import Results, sections
from experiments.tables import row

HEAD = """# All tables of CoMMIT

Written by `python -m experiments.commit summary`; [Experiments](experiments.md) says what they mean and how intervals,
p and verdicts are made. In brackets 95 % intervals over seeds; bold where p is below 0.05."""
TITLES = ["claim", "measured", "experiment", "differences", "tests", "significant for it", "against it", "verdict"]
ORDER = ["claims, in short", "claims", "tune", "controls", *(name for name in EXPERIMENTS if name != "tune")]


def page(results: Results, before: str = "") -> str:
    """All tables, a section an experiment.

    Args:
        before: the page as it was; its sections and claims of experiments that are not recorded are kept.
    """
    found = dict(re.findall(r"^### (.+)\n\n((?:(?!### ).*\n?)+)", before, flags=re.MULTILINE))
    made = {name: text.strip() for name, text in found.items()} | sections(results)
    if rows := _claims(claims_rows(results), made.get("claims", "")):
        made["claims, in short"] = in_short(rows)
        made["claims"] = "\n".join([row(TITLES), row(["---"] * len(TITLES)), *map(row, rows)])
    return "\n\n".join([HEAD, *(f"### {name}\n\n{made[name]}" for name in ORDER if name in made)]) + "\n"


def _claims(rows: list[str], before: str) -> list[list[str]]:
    """Rows by claim, quantity and experiment, in the claims' order: new ones in the place of old ones."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in [*before.splitlines(), *rows]]
    by_key = {tuple(row[:3]): row for row in cells if len(row) == len(TITLES)}
    return [by_key[key] for key in KEYS if key in by_key]


def in_short(rows: list[list[str]]) -> str:
    """The verdicts, a column an experiment; with significant tests its way and against it, of all."""
    experiments = list(dict.fromkeys(found[2] for found in rows))
    verdicts: dict[tuple[str, str], dict[str, str]] = {}
    for text, measured, experiment, _, tests, its, other, verdict in rows:
        counts = f"{its} for, {other} against, of {tests}"
        verdicts.setdefault((text, measured), {})[experiment] = verdict if verdict == "open" else f"{verdict}: {counts}"
    lines = [row(["claim", "measured", *experiments]), row(["---"] * (2 + len(experiments)))]
    return "\n".join(
        [*lines, *(row([*key, *(by.get(name, "") for name in experiments)]) for key, by in verdicts.items())]
    )
