"""`equipoise deltas`: a table in, JSON out; every bad table is one line, status 2 and nothing on stdout.

The paper's own tables are in metrics/test_deltas.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _commands import Run, mistake_of, runner
from equipoise.errors import DataError
from equipoise.metrics.deltas import deltas as compare
from equipoise.tables import read_test_scores

HEADER = "method,task,metric,value,higher_is_better\n"
# ew: caption +50% and -20%, so +15%; speech's error rate halves, +50%; vqa -10%.
TABLE = (
    HEADER
    + """stl,caption,cider,2,true
stl,caption,rouge,10,true
stl,speech,wer,0.5,false
stl,vqa,em,50,true
ew,caption,cider,3,true
ew,caption,rouge,8,true
ew,speech,wer,0.25,false
ew,vqa,em,45,true
cotbal,caption,cider,2,true
cotbal,caption,rouge,10,true
cotbal,speech,wer,0.75,false
cotbal,vqa,em,50,true
"""
)
EW = {"delta_i": 55 / 3, "delta_e": 10 / 3, "tasks": {"caption": 15, "speech": 50, "vqa": -10}}
COTBAL = {"delta_i": -50 / 3, "delta_e": 50 / 3, "tasks": {"caption": 0, "speech": -50, "vqa": 0}}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


@pytest.fixture
def deltas(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Run:
    return runner("deltas", monkeypatch, capfd)


@pytest.fixture
def mistake(deltas: Run, tmp_path: Path) -> Callable[..., str]:
    return partial(mistake_of, deltas, tmp_path)


def test_the_whole_answer_by_hand(deltas, table):
    status, out, errors = deltas(table)
    assert (status, errors) == (0, "")
    found = json.loads(out)
    assert list(found) == ["ew", "cotbal"]
    for method, expected in (("ew", EW), ("cotbal", COTBAL)):
        assert list(found[method]) == ["delta_i", "delta_e", "tasks"]
        assert found[method]["delta_i"] == pytest.approx(expected["delta_i"])
        assert found[method]["delta_e"] == pytest.approx(expected["delta_e"])
        assert found[method]["tasks"] == pytest.approx(expected["tasks"])


def test_another_baseline(deltas, table):
    found = json.loads(deltas(table, "--baseline", "ew")[1])
    assert list(found) == ["stl", "cotbal"]
    # caption: 2 for 3 and 10 for 8; speech: an error of 0.5 for 0.25; vqa: 50 for 45.
    expected = {"caption": 100 * (-1 / 3 + 1 / 4) / 2, "speech": -100, "vqa": 100 / 9}
    assert found["stl"]["tasks"] == pytest.approx(expected)


def test_the_baseline_alone_is_compared_with_nothing(deltas, table):
    table.write_text("".join(TABLE.splitlines(keepends=True)[:5]))
    assert deltas(table) == (0, "{}\n", "")


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace("\n", "\r\n"),
        "\ufeff" + TABLE,
        TABLE.replace(",", " , "),
        TABLE.replace("true", "TRUE").replace("false", "False"),
        TABLE.replace("true", "1").replace("false", "0"),
        TABLE.replace("true", "yes").replace("false", "no"),
        "\n".join(",".join(line.split(",")[place] for place in (3, 0, 4, 2, 1)) for line in TABLE.splitlines()),
    ],
    ids=["CRLF", "BOM", "spaces", "capitals", "digits", "yes", "columns"],
)
def test_forms_of_the_same_table(deltas, table, content):
    expected = deltas(table)
    table.write_bytes(content.encode())
    assert deltas(table) == expected


def test_a_metric_may_point_the_other_way_in_another_task(deltas, table):
    table.write_text(HEADER + "stl,a,score,2,true\nstl,b,score,2,false\new,a,score,1,true\new,b,score,1,false\n")
    assert json.loads(deltas(table)[1])["ew"]["tasks"] == {"a": -50, "b": 50}


STL, EW_ROW = "stl,a,em,1,true\n", "ew,a,em,2,true\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "FILE: found nothing; a header and a row or more are needed"),
        (HEADER, "FILE: found a header alone; a header and a row or more are needed"),
        (
            STL + EW_ROW,
            "FILE, line 1: found columns 'stl', 'a', 'em', '1', 'true'; needed are method, task, metric, value, ",
        ),
        (
            TABLE.replace("higher_is_better", "higher"),
            "FILE, line 1: found columns 'method', 'task', 'metric', 'value', 'higher'; needed are method, task, ",
        ),
        (
            HEADER.replace("\n", ",seed\n") + "stl,a,em,1,true,0\n",
            "FILE, line 1: found columns 'method', 'task', 'metric', 'value', 'higher_is_better', 'seed'; needed are ",
        ),
        (HEADER + "stl,a,em,1\n", "FILE, line 2: found 4 cells; the header has 5"),
        (HEADER + STL + ",a,em,1,true\n", "FILE, line 3: method is empty; a name is needed"),
        (HEADER + "stl,,em,1,true\n", "FILE, line 2: task is empty; a name is needed"),
        (HEADER + "stl,a,,1,true\n", "FILE, line 2: metric is empty; a name is needed"),
        (HEADER + "stl,a,em,good,true\n", "FILE, line 2: value is 'good'; a finite number is needed"),
        (HEADER + "stl,a,em,NaN,true\n", "FILE, line 2: value is 'NaN'; a finite number is needed"),
        (HEADER + "stl,a,em,inf,true\n", "FILE, line 2: value is 'inf'; a finite number is needed"),
        (HEADER + "stl,a,em,,true\n", "FILE, line 2: value is ''; a finite number is needed"),
        (HEADER + "stl,a,em,1,maybe\n", "FILE, line 2: higher_is_better is 'maybe'; allowed: true, false"),
        (HEADER + "stl,a,em,1,\n", "FILE, line 2: higher_is_better is ''; allowed: true, false"),
        (
            HEADER + STL + "ew,a,em,2,false\n",
            "FILE, line 3: higher_is_better of task 'a', metric 'em' is false, and true in a line above; it must ",
        ),
        (
            HEADER + STL + EW_ROW + STL,
            "FILE, line 4: a second row of method 'stl', task 'a', metric 'em'; one is allowed",
        ),
        (HEADER + EW_ROW, "no scores of the baseline 'stl'; found those of ew"),
        (HEADER + STL + "ew,b,em,2,true\n", "ew: no score of task a, metric em; ew and stl need the same ones"),
        (HEADER + STL + EW_ROW + "ew,b,em,2,true\n", "stl: no score of task b, metric em; ew and stl need the same"),
        (
            HEADER + "stl,a,em,0,true\n" + EW_ROW,
            "stl: the score of task a, metric em is 0, so no improvement is defined",
        ),
        (HEADER + STL + 'ew,"a\nb",em,2,true\n', "ew: no score of task a, metric em; ew and stl need the same ones"),
        (HEADER + "stl,a,em,1e-300,true\new,a,em,1e300,true\n", "the scores lie so far apart that a result of theirs"),
        (
            (HEADER + "stl,caf\u00e9,em,1,true\n").encode("latin-1"),
            "FILE is not a CSV file in UTF-8 ('utf-8' codec can't decode byte 0xe9",
        ),
        (HEADER + 'stl,"a,em,1,true\n', "FILE, line 2: is not CSV (unexpected end of data)"),
    ],
)
def test_a_bad_table_is_one_line(mistake, content, line):
    assert mistake(content).startswith(line)


def test_an_unknown_baseline(mistake):
    assert mistake(TABLE, "--baseline", "single") == (
        "no scores of the baseline 'single'; found those of stl, ew, cotbal"
    )


def test_a_file_that_cannot_be_read(deltas, tmp_path):
    status, out, errors = deltas(tmp_path / "none.csv")
    assert (status, out) == (2, "")
    assert errors == f"equipoise: {tmp_path / 'none.csv'} cannot be read (No such file or directory)\n"


cells = [
    st.sampled_from(["stl", "ew", ""]),
    st.sampled_from(["a", "b", "", '"']),
    st.sampled_from(["em", "wer"]),
    st.sampled_from(["0", "1", "-2.5", "nan", "1e308", "5e-324", "x", "\n"]),
    st.sampled_from(["true", "false", "perhaps"]),
]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.lists(st.tuples(*cells).map(",".join), max_size=6).map(lambda rows: (HEADER + "\n".join(rows)).encode()),
    )
)
def test_any_bytes_are_a_table_or_one_line(content, tmp_path):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    try:
        scores = read_test_scores(path)
        assert all(math.isfinite(v) for tasks in scores.values() for row in tasks.values() for v in row.values())
        compare(scores)
    except DataError as error:
        said = str(error)
    else:
        said = "a table"
    assert len(said.splitlines()) == 1
