"""Tables of scores for `equipoise weights` and `equipoise deltas`, with the commands' own output."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from equipoise import cli
from fuzz._mutations import ESCAPE, HOSTILE, spoiled_bytes
from fuzz._surface import Cases

WEIGHTS = b"run,a,b\nmini,0.5,0.25\na+mini,0.75,0.3\nb+mini,0.5,0.5\n"
DELTAS = b"""method,task,metric,value,higher_is_better
stl,a,acc,0.5,true
stl,b,loss,2,false
x,a,acc,0.6,yes
x,b,loss,1.5,0
"""
CELLS = st.one_of(
    st.sampled_from([
        *HOSTILE, "0", "-1", "1e308", "-1e308", "5e-324", "nan", "inf", "1e-320", "1_0", "0x1", "٣", "mini", "a+mini",
        "a", "b",
        "b+mini", "stl", "x", "acc", "true", "0.5", "1", "2", "",
    ]),
    st.floats(allow_nan=False).map(repr),
    st.text(max_size=6),
)  # fmt: skip


def _quoted(rows: list[list[str]]) -> bytes:
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _like(table: bytes) -> st.SearchStrategy[bytes]:
    """The table with some cells replaced."""
    rows = [line.split(",") for line in table.decode().splitlines()]

    def put(changes: list[tuple[int, int, str]]) -> bytes:
        made = [list(row) for row in rows]
        for row, column, cell in changes:
            made[row % len(made)][column % len(made[0])] = cell
        return _quoted(made)

    return st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), CELLS), min_size=1, max_size=4).map(put)


def _numbers(table: bytes) -> st.SearchStrategy[bytes]:
    """The table of weights with any finite numbers."""
    header, *rows = (line.split(",") for line in table.decode().splitlines())

    def put(found: list[float]) -> bytes:
        return _quoted([header, *([row[0], *map(repr, found[2 * n : 2 * n + 2])] for n, row in enumerate(rows))])

    return st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6).map(put)


LARGE = (
    b"run," + b",".join(b"t%d" % n for n in range(200_000)) + b"\nmini," + b",".join([b"1"] * 200_000) + b"\n",
    b"run," + b"a" * 200_000 + b"\nmini,1\n",
    b"run,a\n" + b"".join(b"r%d,1\n" % n for n in range(100_000)),
    b"\0" * 1_000,
    b"\xef\xbb\xbfrun,a\r\nmini,0.5\r\na+mini,1\r\n",
    b'run,"a\nb"\nmini,0.5\n"a\nb+mini",1\n',
)


def _printing(call: Callable[[], None]) -> None:
    """Run a command; what it prints must be JSON, and nothing that steers a terminal."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        call()
    json.loads(out.getvalue(), parse_constant=lambda name: 1 / 0)
    assert ESCAPE[0] not in out.getvalue() + errors.getvalue(), "an escape sequence is printed"


def weights(folder: Path) -> Cases:
    file = folder / "scores.csv"

    def check(case: tuple[bytes, float, float, str]) -> None:
        content, temperature, alpha, degenerate = case
        file.write_bytes(content)
        _printing(lambda: cli.weights(file, temperature, alpha, degenerate))  # type: ignore[arg-type]

    tables = st.one_of(spoiled_bytes(WEIGHTS), spoiled_bytes(WEIGHTS, 1), _like(WEIGHTS), _numbers(WEIGHTS))
    tables = st.integers(0, 80).flatmap(lambda number, usual=tables: st.sampled_from(LARGE) if number == 0 else usual)
    settings = st.one_of(st.just(0.5), st.floats())
    return st.tuples(tables, settings, settings, st.sampled_from(["error", "zero", "zero"])), check


def deltas(folder: Path) -> Cases:
    file = folder / "scores.csv"

    def check(case: tuple[bytes, str]) -> None:
        content, baseline = case
        file.write_bytes(content)
        _printing(lambda: cli.deltas(file, baseline))

    tables = st.one_of(spoiled_bytes(DELTAS), spoiled_bytes(DELTAS, 1), _like(DELTAS), _like(DELTAS))
    tables = st.integers(0, 80).flatmap(lambda number, usual=tables: st.sampled_from(LARGE) if number == 0 else usual)
    return st.tuples(tables, st.sampled_from(["stl", "stl", "stl", "x", "\x1b[31m", ""])), check
