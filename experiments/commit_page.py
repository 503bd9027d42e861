"""The page of all tables of CoMMIT, made of what is recorded; what is not recorded stands as it did."""

from __future__ import annotations

import re

from experiments.commit_claims import claims_rows
from experiments.commit_plan import EXPERIMENTS
from experiments.commit_results import Results, sections
from experiments.tables import row

HEAD = """# All tables of CoMMIT

Written by `python -m experiments.commit summary`; [Experiments](experiments.md) says what they mean and how intervals,
p and verdicts are made. In brackets 95 % intervals over seeds; bold where p is below 0.05."""
TITLES = ["claim", "measured", "experiment", "differences", "tests", "significant for it", "against it", "verdict"]
ORDER = ["claims", "tune", "controls", *(name for name in EXPERIMENTS if name != "tune")]


def page(results: Results, before: str = "") -> str:
    """All tables, a section an experiment.

    Args:
        before: the page as it was; its sections and claims of experiments that are not recorded are kept.
    """
    found = dict(re.findall(r"^### (.+)\n\n((?:(?!### ).*\n?)+)", before, flags=re.MULTILINE))
    made = {name: text.strip() for name, text in found.items()} | sections(results)
    if rows := _claims(claims_rows(results), made.get("claims", "")):
        made["claims"] = "\n".join([row(TITLES), row(["---"] * len(TITLES)), *rows])
    return "\n\n".join([HEAD, *(f"### {name}\n\n{made[name]}" for name in ORDER if name in made)]) + "\n"


def _claims(rows: list[str], before: str) -> list[str]:
    """Rows by claim, quantity and experiment: new ones in the place of old ones."""
    old = [line for line in before.splitlines()[2:] if line]
    return list(({_claim(line): line for line in old} | {_claim(line): line for line in rows}).values())


def _claim(line: str) -> tuple[str, ...]:
    return tuple(line.split(" | ")[:3])
