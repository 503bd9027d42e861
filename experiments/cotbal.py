"""CoTBal's tables on the embedded mixture (docs/experiments.md: the protocol, and what came out).

    python -m experiments.cotbal run OUT --seeds 0,1,2,3,4                            # probes, weights, the final run
    python -m experiments.cotbal run OUT --seeds 0,1,2,3,4 --compare stl,ew,tla,rlw,dwa,igbv1   # Table 2
    python -m experiments.cotbal run OUT --seeds 0,1,2,3,4 --compare stl --ablations  # Tables 3 and 4
    python -m experiments.cotbal summary docs/experiments-cotbal.md                  # the page of what is recorded

Every run is made by `equipoise balance`, one folder a seed: OUT/SEED; its weights, scores and costs, and the score of
each of the probes' answers, are recorded in experiments/records/cotbal. What is finished is not run again, so the same
command goes on where it was stopped, and one with more methods makes those alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import spearmanr

from equipoise.comparing.verdict import shown
from equipoise.training.run_directory import write_atomically, write_json
from experiments.records import RECORDS, rounded
from experiments.tables import Table, Values, row

RECIPE = Path(__file__).parents[1] / "recipes" / "embedded-mixture.yaml"
BASELINE, FINAL = "ew", "cotbal"
#: What the names of the ablations begin with.
PART = f"{FINAL}-"
RECORDED = RECORDS / "cotbal"
#: What is recorded of a seed as `equipoise balance` wrote it, and the probes' scores: by run, by task, by answer.
BALANCE, ANSWERS = "balance.json", "answers.json"
FILES = (BALANCE, "results.json", "costs.json")
HEAD = """# All tables of CoTBal

Written by `python -m experiments.cotbal summary`; [Experiments](experiments.md) says what they mean and how intervals
and p are made. In brackets 95 % intervals over seeds; bold where p is below 0.05."""
VECTORS = ("one2all", "all2one", "contribution", "difficulty", "cotbal")


def run(out: Path, seeds: Sequence[int], compare: str | None, ablations: bool, slots: int) -> None:
    """Have `equipoise balance` make what is missing, seed by seed."""
    for seed in seeds:
        command = [sys.executable, "-m", "equipoise", "balance", str(RECIPE), f"train.seed={seed}", "train.threads=1"]
        command += [f"train.feature_folder={out.resolve() / 'features'}"]
        command += ["--on-degenerate", "zero", "--out", str(out / str(seed)), "--slots", str(slots)]
        command += ["--compare", compare] if compare else []
        command += ["--ablations"] if ablations else []
        subprocess.run(command, check=True)
        keep(out / str(seed), RECORDED / str(seed))


def keep(made: Path, kept: Path) -> None:
    """Record what `equipoise balance` wrote of a seed; methods that it was not asked for now stay as they were."""
    kept.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        file = kept / name
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() and name != BALANCE else {}
        write_json(file, _united(before, json.loads((made / name).read_text(encoding="utf-8"))))
    balance = json.loads((made / BALANCE).read_text(encoding="utf-8"))
    answers = {
        run: {task: _scores(made / "nodes" / node / "predictions" / f"{task}.jsonl") for task in balance["tasks"]}
        for run, node in balance["nodes"].items()
    }
    write_json(kept / ANSWERS, answers)


def _united(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of `now`, each mapping over the one that was there."""
    return {
        **before,
        **{key: {**before.get(key, {}), **one} if isinstance(one, dict) else one for key, one in now.items()},
    }


def _scores(predictions: Path) -> list[float]:
    lines = predictions.read_text(encoding="utf-8").splitlines()
    return [rounded(json.loads(line)["score"]) for line in lines]


# ---------------------------------------------------------------------- what came out


def found(out: Path, name: str) -> dict[int, Any]:
    """A file of each seed that has it."""
    files = {int(file.parent.name): file for file in out.glob(f"*/{name}") if file.parent.name.isdigit()}
    return {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in sorted(files.items())}


def weighters(results: Mapping[int, Any]) -> dict[int, Any]:
    """Table 2's methods: other ways to weigh, one model a task."""
    return _only(results, lambda method: not method.startswith(PART))


def parts(results: Mapping[int, Any]) -> dict[int, Any]:
    """Tables 3 and 4's: T, the parts of lambda, precise difficulty, beside equal weights and all of it."""
    found = _only(results, lambda method: method.startswith(PART) or method in (BASELINE, FINAL))
    return {seed: one for seed, one in found.items() if any(method.startswith(PART) for method in one["test"])}


def scores(results: Mapping[int, Any], title: str) -> Table | None:
    """Test scores of every method against equal weights."""
    cells: dict[str, dict[str, Values]] = {}
    for seed, content in results.items():
        for method, tasks in _baseline_first(content["test"]).items():
            for task, sets in tasks.items():
                for name, value in sets.items():
                    cells.setdefault(f"{task} ({name})", {}).setdefault(method, {})[seed] = value
    return Table(f"{title}: test scores (higher is better)", cells) if cells else None


def improvements(results: Mapping[int, Any], title: str) -> Table | None:
    """Delta I and Delta E of every method against equal weights; of seeds that have one model a task."""
    cells: dict[str, dict[str, Values]] = {}
    for seed, content in results.items():
        for method, deltas in _baseline_first(content["deltas"]).items():
            for name, key in (("Delta I %", "delta_i"), ("Delta E %, lower is better", "delta_e")):
                cells.setdefault(name, {}).setdefault(method, {})[seed] = deltas[key]
    return Table(f"{title}: against one model a task", cells) if cells else None


def weights(balances: Mapping[int, Any]) -> str:
    """Each seed's weights, and how far the seeds agree on the ranking of tasks."""
    tasks = next(iter(balances.values()))["tasks"]
    lines = ["**Weights, and how far the ranking of tasks agrees**", ""]
    lines += [row(["`cotbal` weights", *tasks]), row(["---"] * (len(tasks) + 1))]
    for seed, content in balances.items():
        lines.append(row([f"seed {seed}", *(shown(content["weights"]["cotbal"][task]) for task in tasks)]))
    lines += ["", row(["ranking of tasks by", "Spearman between two seeds: mean", "smallest", "largest"])]
    lines.append(row(["---"] * 4))
    for vector in VECTORS:
        ranked = [[content["weights"][vector][task] for task in tasks] for content in balances.values()]
        pairs = [float(spearmanr(one, other).statistic) for one, other in combinations(ranked, 2)]
        if pairs:
            lines.append(row([vector, shown(fmean(pairs)), shown(min(pairs)), shown(max(pairs))]))
    return "\n".join(lines)


def summary(out: Path) -> str:
    """The page of all tables, of what is recorded."""
    results, balances = found(out, "results.json"), found(out, BALANCE)
    groups = {"Table 2": weighters(results), "Tables 3 and 4": parts(results)}
    tables = [make(group, title) for title, group in groups.items() for make in (scores, improvements)]
    made = [table.markdown() for table in tables if table is not None]
    return "\n\n".join([HEAD, *made, *([weights(balances)] if balances else [])]) + "\n"


def _only(results: Mapping[int, Any], wanted: Callable[[str], bool]) -> dict[int, Any]:
    return {
        seed: {key: {name: one for name, one in content[key].items() if wanted(name)} for key in ("test", "deltas")}
        for seed, content in results.items()
    }


def _baseline_first(methods: Mapping[str, Any]) -> dict[str, Any]:
    first = {BASELINE: methods[BASELINE]} if BASELINE in methods else {}
    return {**first, **{name: value for name, value in methods.items() if name != BASELINE}}


def numbers(text: str) -> list[int]:
    """Of an option: `0,1,2`."""
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("run")
    making.add_argument("out", type=Path)
    making.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4])
    making.add_argument("--compare")
    making.add_argument("--ablations", action="store_true")
    making.add_argument("--slots", type=int, default=1)
    commands.add_parser("summary").add_argument("page", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given.out, given.seeds, given.compare, given.ablations, given.slots)
    else:
        write_atomically(given.page, [summary(RECORDED)])


if __name__ == "__main__":
    main()
