"""What finished runs measured, kept beside the code: tables and figures are made of this, not of run directories.

A file a comparison, a line a run: its `Measured`, and those columns of its log that tables and figures read. Runs take
hours and gigabytes, and go; of a run that is recorded all tables, verdicts and figures can be made again, without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise.comparing.measured import Measured
from equipoise.training.run_directory import RunDirectory, write_atomically

RECORDS = Path(__file__).parent / "records"
FACTOR = "lr_factor/"
#: Columns that are kept of every log, and the beginnings of those of its modules.
COLUMNS, BY_MODULE = ("loss", "kappa", "theory/lambda"), ("kappa/", FACTOR)
#: What marks a log of the theorems' numbers, and the columns that are kept of such a one besides.
THEORY, THEORY_COLUMNS = "theory/H/", ("theory/", "grad_norm/", "grad_norm_relative/", "drift/")
DIGITS = 5


@dataclass(frozen=True)
class Recorded:
    """A finished run.

    Attributes:
        measured: what its comparison says of it.
        log: by column, a value a step; None where that step has none.
    """

    measured: Measured
    log: Mapping[str, Sequence[float | None]]

    @property
    def lines(self) -> list[dict[str, float]]:
        """The log, a line a step."""
        steps = max(map(len, self.log.values()), default=0)
        lines: list[dict[str, float]] = [{} for _ in range(steps)]
        for name, column in self.log.items():
            for line, value in zip(lines, column, strict=True):
                if value is not None:
                    line[name] = value
        return lines


Runs = dict[str, dict[int, Recorded]]
"""By method, by seed."""


def recorded(file: Path) -> Runs:
    """The runs of a comparison; none where there is no such file."""
    found: Runs = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        plain = json.loads(line)
        log = plain.pop("log")
        found.setdefault(plain["method"], {})[plain["seed"]] = Recorded(_measured(plain), log)
    return found


def record(comparison: Path, file: Path) -> None:
    """Put the finished runs of a folder of `equipoise compare` into a file, in the place of those that it had before.

    Runs that the folder does not have stay.
    """
    content = json.loads((comparison / "comparison.json").read_text(encoding="utf-8"))
    runs = recorded(file)
    for measured in map(_measured, content["runs"]):
        log = _columns(RunDirectory(comparison / "nodes" / measured.nodes[0]).metrics())
        runs.setdefault(measured.method, {})[measured.seed] = Recorded(measured, log)
    save(runs, file)


def save(runs: Runs, file: Path) -> None:
    """Write a file of runs, by method and seed."""
    lines: Iterable[Recorded] = (run for by_seed in runs.values() for _, run in sorted(by_seed.items()))
    plain = (asdict(run.measured) | {"log": dict(run.log)} for run in lines)
    write_atomically(file, [json.dumps(line, ensure_ascii=False) + "\n" for line in plain])


def _measured(plain: Mapping[str, Any]) -> Measured:
    return Measured(**{**plain, "nodes": tuple(plain["nodes"])})


def _columns(lines: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    names = list(dict.fromkeys(name for line in lines for name in line))
    theory = any(name.startswith(THEORY) for name in names)
    prefixes = (*BY_MODULE, *THEORY_COLUMNS) if theory else BY_MODULE
    kept = [name for name in names if name in COLUMNS or name.startswith(prefixes)]
    columns = {name: [line.get(name) for line in lines] for name in kept}
    return {name: [None if one is None else rounded(one) for one in column] for name, column in columns.items()}


def rounded(value: float) -> float:
    """To the digits that are recorded."""
    return float(f"{value:.{DIGITS}g}")
