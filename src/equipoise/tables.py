"""Tables of scores in CSV files, as `equipoise weights` and `equipoise deltas` read them.

UTF-8 (with or without a byte order mark), commas, one header; blank lines do not count, nor spaces around cells.
Whether the scores fit together is for whoever computes with them.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from pathlib import Path

from equipoise.errors import DataError
from equipoise.opening import read_plain
from equipoise.texts import shown

LARGEST = 16_000_000  # bytes of a table
METHOD_COLUMNS = ("method", "task", "metric", "value", "higher_is_better")
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_validation_scores(path: Path) -> dict[str, dict[str, float]]:
    """Read a table with a row a run and a column a task.

    The first column names the runs; its header may be anything (`run` in our own files), the others' are the tasks.

    Returns:
        By run, by task, in the table's order.

    Raises:
        DataError: a file that cannot be read, or holds anything but such a table of finite numbers.
    """
    (header_line, header), *rows = _rows(path)
    tasks = header[1:]
    if not tasks:
        raise DataError(
            f"{path}, line {header_line}: found 1 column; one for the runs and one or more for the tasks are needed"
        )
    _all_differ(path, header_line, tasks)
    scores: dict[str, dict[str, float]] = {}
    for line, (run, *cells) in rows:
        if run in scores:
            raise DataError(f"{path}, line {line}: a second row of run {shown(run)}; one is allowed")
        scores[run] = {task: _number(path, line, task, cell) for task, cell in zip(tasks, cells, strict=True)}
    return scores


def read_test_scores(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Read a table with the columns method, task, metric, value and higher_is_better, in any order.

    Returns:
        By method, by task, by metric, in the table's order. Where a lower value is better it is negated, so that higher
        is better in all; Delta I is the same for a negated score.

    Raises:
        DataError: a file that cannot be read, or holds anything but such a table of finite numbers.
    """
    (header_line, header), *rows = _rows(path)
    if sorted(header) != sorted(METHOD_COLUMNS):
        raise DataError(
            f"{path}, line {header_line}: found columns {', '.join(map(shown, header[:20]))}; "
            f"needed are {', '.join(METHOD_COLUMNS)}"
        )
    scores: dict[str, dict[str, dict[str, float]]] = {}
    directions: dict[tuple[str, str], bool] = {}
    for line, cells in rows:
        row = dict(zip(header, cells, strict=True))
        for column in ("method", "task", "metric"):
            if not row[column]:
                raise DataError(f"{path}, line {line}: {column} is empty; a name is needed")
        method, task, metric = row["method"], row["task"], row["metric"]
        higher = TRUTH.get(row["higher_is_better"].lower())
        if higher is None:
            raise DataError(
                f"{path}, line {line}: higher_is_better is {shown(row['higher_is_better'])}; allowed: true, false"
            )
        if directions.setdefault((task, metric), higher) != higher:
            raise DataError(
                f"{path}, line {line}: higher_is_better of task {shown(task)}, metric {shown(metric)} is "
                f"{str(higher).lower()}, and {str(not higher).lower()} in a line above; "
                "it must be the same for every method"
            )
        of_task = scores.setdefault(method, {}).setdefault(task, {})
        if metric in of_task:
            raise DataError(
                f"{path}, line {line}: a second row of method {shown(method)}, task {shown(task)}, "
                f"metric {shown(metric)}; one is allowed"
            )
        value = _number(path, line, "value", row["value"])
        of_task[metric] = value if higher else -value
    return scores


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The header and the rows, stripped, each with the number of its last line and as many cells as the header."""
    try:
        text = read_plain(path, LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # no UTF-8; a path with a null byte
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            row = [" ".join(cell.split()) for cell in cells]  # no line break that a message would repeat
            if any(row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error
    if len(rows) < 2:
        raise DataError(
            f"{path}: found {'a header alone' if rows else 'nothing'}; a header and a row or more are needed"
        )
    width = len(rows[0][1])
    for line, row in rows:
        if len(row) != width:
            raise DataError(f"{path}, line {line}: found {len(row)} cells; the header has {width}")
    return rows


def _all_differ(path: Path, line: int, names: list[str]) -> None:
    counts = Counter(names)
    for name in names:
        if not name or counts[name] > 1:
            problem = f"two columns are named {shown(name)}" if name else "a column has no name"
            raise DataError(f"{path}, line {line}: {problem}; every task needs a name of its own")


def _number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell) if "_" not in cell else math.nan  # Python reads 1_0 as 10
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, line {line}: {column:.60} is {shown(cell)}; a finite number is needed")
    return value
