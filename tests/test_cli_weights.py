"""`equipoise weights`: a table in, JSON out; every bad table is one line, status 2 and nothing on stdout."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _commands import Run, mistake_of, runner
from equipoise.errors import DataError
from equipoise.tables import read_validation_scores
from equipoise.tasks.contribution import balance_tasks

# Three tasks with quotients that are exact in binary.
TABLE = """run,a,b,c
mini,0.25,0.5,-2
a+mini,0.75,0.5,-1.5
b+mini,0.5,1,-2.5
c+mini,0.125,0.5,-1
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Run:
    return runner("weights", monkeypatch, capfd)


@pytest.fixture
def mistake(weights: Run, tmp_path: Path) -> Callable[..., str]:
    return partial(mistake_of, weights, tmp_path)


def softmax(values: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in values]
    return [len(values) * term / sum(exponentials) for term in exponentials]


def test_the_whole_answer_by_hand(weights, table):
    status, out, errors = weights(table)
    assert (status, errors) == (0, "")
    found = json.loads(out)
    giving, receiving = softmax([0.25, 0, -0.125], 0.5), softmax([-0.125, 0, 0], 0.5)
    contribution = [(one + other) / 2 for one, other in zip(giving, receiving)]
    hard = softmax([2 / 3, 0.5, 1], 0.5)
    vectors = {
        "one2all": giving,
        "all2one": receiving,
        "contribution": contribution,
        "difficulty": hard,
        "cotbal": [(one + other) / 2 for one, other in zip(contribution, hard)],
    }
    assert list(found) == ["tasks", "contributions", "one2all", "all2one", "difficulty", "weights"]
    assert found["tasks"] == ["a", "b", "c"]
    assert found["contributions"] == [[1, 0, 0.5], [0.5, 1, -0.5], [-0.25, 0, 1]]
    assert found["one2all"] == {"a": 0.25, "b": 0, "c": -0.125}
    assert found["all2one"] == {"a": 0.125, "b": 0, "c": 0}
    assert found["difficulty"] == pytest.approx({"a": 2 / 3, "b": 0.5, "c": 1})
    assert list(found["weights"]) == list(vectors)
    for name, vector in vectors.items():
        assert found["weights"][name] == pytest.approx(dict(zip("abc", vector)), rel=1e-12)


def test_temperature_and_alpha_reach_the_weights(weights, table):
    found = json.loads(weights(table, "--temperature", 2, "--alpha", 0.25)[1])["weights"]
    assert found["difficulty"] == pytest.approx(dict(zip("abc", softmax([2 / 3, 0.5, 1], 2))))
    assert found["cotbal"] == pytest.approx(
        {task: 0.25 * found["contribution"][task] + 0.75 * found["difficulty"][task] for task in "abc"}
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--temperature", "0"], "temperature: found 0; it must be above 0 and finite"),
        (["--temperature", "nan"], "temperature: found nan; it must be above 0 and finite"),
        (["--alpha", "1.5"], "alpha: found 1.5; it must be from 0 to 1"),
    ],
)
def test_options_out_of_range(weights, table, options, line):
    assert weights(table, *options) == (2, "", f"equipoise: {line}\n")


def test_an_option_that_is_no_choice(weights, table):
    status, out, errors = weights(table, "--on-degenerate", "ignore")
    assert (status, out) == (2, "")
    assert "zero" in errors


def test_a_degenerate_table_stops_and_on_demand_is_flagged(weights, table):
    table.write_text(TABLE.replace("b+mini,0.5,1,", "b+mini,0.5,0.25,").replace("c+mini,0.125,0.5,-1", "c+mini,0,0,0"))
    status, out, errors = weights(table)
    assert (status, out) == (2, "")
    assert errors == (
        "equipoise: task b: score 0.25 after b+mini is not above 0.5 after mini, so no contribution to it is defined; "
        "task c: score 0 with all of its data (-2.0 with its subset), so its difficulty is not defined "
        "(--on-degenerate zero takes 0 instead)\n"
    )
    status, out, errors = weights(table, "--on-degenerate", "zero")
    assert status == 0
    assert errors == (
        "equipoise: contributions to b are undefined and set to 0\n"
        "equipoise: difficulty of c is undefined and set to 0\n"
    )
    found = json.loads(out)
    assert found["degenerate"] == {"contributions": ["b"], "difficulty": ["c"]}
    assert [row[1] for row in found["contributions"]] == [0, 0, 0]
    assert found["difficulty"] == pytest.approx({"a": 2 / 3, "b": -1, "c": 0})
    assert sum(found["weights"]["cotbal"].values()) == pytest.approx(3)


def test_a_task_that_its_own_data_hardly_helps_is_said(weights, table):
    table.write_text(
        TABLE.replace("a+mini,0.75,0.5,", "a+mini,0.75,0.75,").replace("b+mini,0.5,1,", "b+mini,0.5,0.5078125,")
    )
    status, out, errors = weights(table)
    assert status == 0
    assert json.loads(out)["weights"]["one2all"] == pytest.approx({"a": 3, "b": 0, "c": 0})
    assert errors == (
        "equipoise: all weight by one2all goes to a: contributions to b, divided by what it gained by its own data, "
        "are 0 to 32; look at another seed or at more validation answers before you trust them (alpha 0 leaves them "
        "out, a higher temperature evens them out)\n"
    )


# ---------------------------------------------------------------------------------------------- the file's form


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace("run,", ",", 1),  # as pandas writes an index without a name
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\n\n"),
        TABLE.rstrip("\n"),
        TABLE.replace(",", " , "),
        TABLE + ",,,\n",
        TABLE.replace("a+mini", '"a+mini"').replace("0.75", '"0.75"'),
        "".join(TABLE.splitlines(keepends=True)[place] for place in (0, 4, 2, 1, 3)),
        TABLE.replace("0.25", "25e-2").replace("-2\n", "-2.000\n"),
    ],
    ids=[
        "no header", "CRLF", "CR", "BOM", "blank lines", "no last newline", "spaces", "empty row", "quotes", "order",
        "exponents",
    ],
)  # fmt: skip
def test_forms_of_the_same_table(weights, table, content):
    expected = weights(table)
    table.write_bytes(content.encode())
    assert weights(table) == expected


def test_names_of_any_kind(weights, table):
    names = {"a": "Größe, 东京", "b": "mini", "c": "x+mini"}
    lines = [line.split(",") for line in TABLE.splitlines()]
    renamed = [["run", *(f'"{names[task]}"' for task in "abc")], ["mini", *lines[1][1:]]]
    renamed += [[f'"{names[run[0]]}+mini"', *cells] for run, *cells in lines[2:]]
    table.write_text("\n".join(",".join(row) for row in renamed), encoding="utf-8")
    status, out, errors = weights(table)
    assert (status, errors) == (0, "")
    assert json.loads(out)["tasks"] == list(names.values())
    assert json.loads(out)["one2all"] == dict(zip(names.values(), [0.25, 0, -0.125]))


# ---------------------------------------------------------------------------------------------- bad tables


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "FILE: found nothing; a header and a row or more are needed"),
        ("\n \n,,\n", "FILE: found nothing; a header and a row or more are needed"),
        ("run,a\n", "FILE: found a header alone; a header and a row or more are needed"),
        ("run\nmini\n", "FILE, line 1: found 1 column; one for the runs and one or more for the tasks are needed"),
        ("run,a,a\nmini,1,2\n", "FILE, line 1: two columns are named 'a'; every task needs a name of its own"),
        ("run,a,\nmini,1,2\n", "FILE, line 1: a column has no name; every task needs a name of its own"),
        ("run,a\nmini,1\na+mini\n", "FILE, line 3: found 1 cells; the header has 2"),
        ("a,b\nmini,1,2\n", "FILE, line 2: found 3 cells; the header has 2"),
        (TABLE.replace("b+mini,", "B+mini,"), "no scores of run 'b+mini'; the tasks a, b, c need one each, and 'mini'"),
        (
            "".join(TABLE.splitlines(keepends=True)[:4]),
            "no scores of run 'c+mini'; the tasks a, b, c need one each, and 'mini'",
        ),
        (
            TABLE.replace("mini,0.25,0.5,-2\n", "", 1),
            "no scores of run 'mini'; found 'a+mini', 'b+mini', 'c+mini'",
        ),
        (
            TABLE + "d+mini,1,1,1\n",
            "run 'd+mini' belongs to no task; allowed: mini, a+mini, b+mini, c+mini",
        ),
        (TABLE + "a+mini,1,1,1\n", "FILE, line 6: a second row of run 'a+mini'; one is allowed"),
        (TABLE.replace("0.75", "high"), "FILE, line 3: a is 'high'; a finite number is needed"),
        (TABLE.replace("0.75", "nan"), "FILE, line 3: a is 'nan'; a finite number is needed"),
        (TABLE.replace("0.75", "-inf"), "FILE, line 3: a is '-inf'; a finite number is needed"),
        (TABLE.replace("0.75", "1e999"), "FILE, line 3: a is '1e999'; a finite number is needed"),
        (TABLE.replace("0.75", "7_5"), "FILE, line 3: a is '7_5'; a finite number is needed"),
        (TABLE.replace("0.75", "75%"), "FILE, line 3: a is '75%'; a finite number is needed"),
        (TABLE.replace("0.75", ""), "FILE, line 3: a is ''; a finite number is needed"),
        (TABLE.replace("0.75", '"x\ny"'), "FILE, line 4: a is 'x y'; a finite number is needed"),
        (
            TABLE.replace("mini,0.25", '"mi\nni",0.25', 1),
            "no scores of run 'mini'; found 'mi ni', 'a+mini', 'b+mini', ",
        ),
        (TABLE.replace("0.75", '"0.75'), "FILE, line 5: is not CSV (unexpected end of data)"),
        (TABLE.replace("0.75", '"0.75"x'), "FILE, line 3: is not CSV ("),
        (TABLE.replace("run", "ru\u00e9n").encode("latin-1"), "FILE is not a CSV file in UTF-8 ('utf-8' codec can't"),
        (TABLE.encode("utf-16"), "FILE is not a CSV file in UTF-8 ('utf-8' codec can't decode byte 0xff"),
        ("run;a\nmini;1\n", "FILE, line 1: found 1 column; one for the runs and one or more for the tasks are needed"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and value.startswith(("FILE", "run '", "no ")) else "",
)
def test_a_bad_table_is_one_line(mistake, content, line):
    assert mistake(content).startswith(line)


def test_a_file_that_cannot_be_read(weights, tmp_path):
    status, out, errors = weights(tmp_path / "none.csv")
    assert (status, out) == (2, "")
    assert errors == f"equipoise: {tmp_path / 'none.csv'} cannot be read (No such file or directory)\n"
    assert weights(tmp_path)[2] == f"equipoise: {tmp_path} cannot be read (Is a directory)\n"


cells = st.sampled_from(
    ["run", "mini", "a", "b", "a+mini", "b+mini", "0", "1", "-0.5", "1e308", "-1e308", "5e-324", "nan", "", '"', "\n",
     "\x00"]
)  # fmt: skip
texts = st.one_of(
    st.text(),
    st.lists(st.lists(cells, max_size=4).map(",".join), max_size=6).map("\n".join),
    st.lists(st.sampled_from(["0", "1", "0.5", "-2", "1e308", "-1e308", "5e-324"]), min_size=6, max_size=6).map(
        lambda n: f"run,a,b\nmini,{n[0]},{n[1]}\na+mini,{n[2]},{n[3]}\nb+mini,{n[4]},{n[5]}"
    ),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=60), texts))
def test_any_bytes_are_a_table_or_one_line(content, tmp_path):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    try:
        found = balance_tasks(read_validation_scores(path), on_degenerate="zero").as_dict()
    except DataError as error:
        said = str(error)
    else:
        said = json.dumps(found, allow_nan=False)
        for vector in found["weights"].values():
            assert sum(vector.values()) == pytest.approx(len(found["tasks"]))
    assert len(said.splitlines()) == 1


names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.dictionaries(names, st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    min_size=1, max_size=5),
    tasks=st.lists(names, min_size=3, max_size=3, unique=True),
)  # fmt: skip
def test_what_a_csv_writer_writes_is_read_back(rows, tasks, tmp_path):
    text = io.StringIO()
    csv.writer(text).writerows([["", *tasks], *([run, *row] for run, row in rows.items())])
    path = tmp_path / "written.csv"
    path.write_bytes(text.getvalue().encode())
    assert read_validation_scores(path) == {run: dict(zip(tasks, row)) for run, row in rows.items()}


# ---------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("command", ["weights", "deltas"])
@pytest.mark.parametrize("good", [True, False])
def test_neither_torch_nor_transformers_is_imported(command, good, table):
    if command == "deltas":
        table.write_text("method,task,metric,value,higher_is_better\nstl,a,m,1,true\n")
    if not good:
        table.write_text("")
    script = (
        "import sys; from equipoise.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'peft', 'pyarrow', 'datasets'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'equipoise'\n{script}", command, str(table)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (0 if good else 2), done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
