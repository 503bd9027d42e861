"""Runs summed up by hand, the verdicts that follow, and the tables in every format, hostile names among them."""

from __future__ import annotations

import csv
import io
import re

import pytest

from equipoise.comparing.measured import Measured
from equipoise.comparing.summary import DELTA_E, DELTA_I, KAPPA, LOSS, SPREAD, TIME, Quantity, summarise
from equipoise.comparing.tables import all_tables, differing, overview
from equipoise.comparing.verdict import BETTER, MIXED, NOT_SHOWN, NOTHING, ONE_SEED, WORSE, caveat, verdicts
from equipoise.comparing.writing import comma_separated, escape_latex, escape_markdown, latex, markdown

HOSTILE = r"a_1 50% & $x$ #{y} ^~ \end{table} <script>|`*[1]* -- 'q'"


def run(method, seed, loss=0.5, kappa=2.0, time=1.2, **scores):
    tasks = {task: {"exact_match": value} for task, value in scores.items()}
    return Measured(method, seed, (f"{method}@{seed}",), tasks, loss, kappa, 0.7, time)


def three(name="b"):
    return [
        run("a", 0, 0.50, 2.0, vqa=0.5, cap=0.4), run(name, 0, 0.40, 1.0, vqa=0.6, cap=0.4),
        run("a", 1, 0.52, 4.0, vqa=0.6, cap=0.5), run(name, 1, 0.43, 1.0, vqa=0.71, cap=0.4),
        run("a", 2, 0.54, 8.0, vqa=0.7, cap=0.6), run(name, 2, 0.44, 1.0, vqa=0.79, cap=0.7),
    ]  # fmt: skip


def test_cells_by_hand():
    found = summarise(three(), ["a", "b", "never run"], "a")
    assert found.methods == ("a", "b")
    vqa = found.cell("b", Quantity("exact_match", "vqa"))
    assert vqa.estimate.mean == pytest.approx(0.7)
    assert vqa.difference.mean == pytest.approx(0.1)
    # Differences 0.1, 0.11, 0.09: s = 0.01, t = 17.32, p = 1 - t / sqrt(t^2 + 2); the other cell's p is larger.
    assert vqa.difference.p == pytest.approx(1 - 17.3205 / (17.3205**2 + 2) ** 0.5, rel=1e-3)
    assert vqa.p_holm == pytest.approx(2 * vqa.difference.p)
    assert found.cell("a", Quantity("exact_match", "vqa")).difference is None
    kappa = found.cell("b", KAPPA)
    assert found.cell("a", KAPPA).estimate.mean == pytest.approx(4)
    assert (kappa.difference.mean, kappa.difference.seeds) == (pytest.approx(0.25), 3)
    # 1.2 is 1.2 in every run: nothing varies, and a step time is not tested anyway.
    assert (found.cell("b", TIME).difference.p, found.cell("b", SPREAD).difference.p) == (None, None)
    # Training is a table of its own: of three tested cells at most, not of five.
    assert found.cell("b", LOSS).p_holm <= 3 * found.cell("b", LOSS).difference.p


def test_step_times_have_no_p():
    runs = [run("a", 0, time=1.1), run("b", 0, time=1.5), run("a", 1, time=1.2), run("b", 1, time=1.9)]
    assert summarise(runs, ["a", "b"], "a").cell("b", TIME).difference.p is None


def test_only_seeds_that_both_have_are_paired():
    runs = [*three()[:-2], run("b", 2, vqa=0.9, cap=0.9), run("b", 3, vqa=0.1, cap=0.9)]
    cell = summarise(runs, ["a", "b"], "a").cell("b", Quantity("exact_match", "vqa"))
    assert (cell.estimate.seeds, cell.difference.seeds) == (4, 2)
    assert cell.difference.mean == pytest.approx((0.1 + 0.11) / 2)


def test_deltas_are_against_the_baseline_by_seed():
    found = summarise(three(), ["a", "b"], "a")
    # Seed 0: vqa +20 %, cap 0; seed 1: 18.333 %, -20 %; seed 2: 12.857 %, 16.667 %.
    assert found.cell("b", DELTA_I).estimate.mean == pytest.approx((10 - 0.83333 + 14.7619) / 3, rel=1e-4)
    assert found.cell("b", DELTA_E).estimate.mean == pytest.approx(10 / 3)
    assert found.cell("a", DELTA_I) is None
    runs = [run("a", 0, vqa=0.0, cap=0.1), run("b", 0, vqa=0.1, cap=0.1)]
    undefined = summarise(runs, ["a", "b"], "a")
    assert undefined.deltas == ()
    assert "seed 0: a: the score of task vqa, metric exact_match is 0" in undefined.undefined
    assert "are not defined here (seed 0: a" in overview(undefined, {}).note
    assert summarise([run("a", 0, vqa=0.5), run("b", 0, vqa=0.6)], ["a", "b"], "a").deltas == ()


def test_deltas_are_against_one_model_a_task_where_that_was_run():
    runs = [*three(), *(run("stl", seed, vqa=0.5, cap=0.5) for seed in (0, 1))]
    found = summarise(runs, ["a", "b", "stl"], "a")
    # a: seed 0: 0 and -20 %; seed 1: 20 % and 0.
    assert found.cell("a", DELTA_I).estimate.mean == pytest.approx(0)
    assert found.cell("a", DELTA_E).estimate.mean == pytest.approx(5)
    assert found.cell("stl", DELTA_I) is None
    assert "against one model a task (stl), by seed" in overview(found, {}).note
    assert found.cell("b", Quantity("exact_match", "vqa")).difference.mean == pytest.approx(0.1)


def test_deltas_are_over_the_tasks_that_one_model_a_task_has():
    """A task that is tested and never trained has no model of its own."""
    alone = [run("stl", seed, vqa=0.5, cap=0.5) for seed in (0, 1)]
    with_other = [run(one.method, one.seed, **{t: s["exact_match"] for t, s in one.scores.items()}, other=0.3)
                  for one in three()]  # fmt: skip
    whole = summarise([*three(), *alone], ["a", "b", "stl"], "a")
    found = summarise([*with_other, *alone], ["a", "b", "stl"], "a")
    assert (found.left_out, whole.left_out, found.undefined) == (("other",), (), "")
    for quantity in (DELTA_I, DELTA_E):
        for method in "ab":
            assert found.cell(method, quantity).values == whole.cell(method, quantity).values
    assert "by seed. Without other, of which stl has no score." in overview(found, {}).note
    assert "Without" not in overview(whole, {}).note
    single = [run("stl", seed, vqa=0.5) for seed in (0, 1)]
    undefined = summarise([*three(), *single], ["a", "b", "stl"], "a")
    assert undefined.deltas == ()
    assert "(stl has no score of cap, and two tasks or more are needed)" in overview(undefined, {}).note


def pairs(by_task, seeds=4):
    """Runs of a (0.5 everywhere, but for noise) and of b, which differs by so much on each task."""
    noise = (0.001, -0.001, 0.002, -0.002)
    values = {task: [0.5 + change + noise[seed] for seed in range(seeds)] for task, change in by_task.items()}
    return [
        one
        for seed in range(seeds)
        for one in (
            run("a", seed, **dict.fromkeys(by_task, 0.5)),
            run("b", seed, **{task: own[seed] for task, own in values.items()}),
        )
    ]


@pytest.mark.parametrize(
    ("by_task", "kind", "name"),
    [
        ({"x": 0.1}, BETTER, "better"),
        ({"x": -0.1}, WORSE, "worse"),
        ({"x": 0.1, "y": 0.0}, BETTER, "better on 1 of 2 scores"),
        ({"x": 0.1, "y": -0.2, "z": 0.0}, MIXED, "better and worse"),
        ({"x": 0.0, "y": 0.0005}, NOT_SHOWN, "no difference shown"),
    ],
)
def test_verdicts(by_task, kind, name):
    [found] = verdicts(summarise(pairs(by_task), ["a", "b"], "a"))
    assert (found.kind, found.name) == (kind, name)
    assert found.sentence.startswith("Against a: ")
    for task, change in by_task.items():
        assert f"{task}: exact match" in found.sentence
        if abs(change) >= 0.1:
            assert re.search(rf"{task}: exact match [+−]{abs(change):.3f} \[[+−].*p \(Holm\)", found.sentence)


def test_a_lower_loss_is_better_where_there_is_no_score():
    """What runs have where no task has a metric; tests/comparing/test_compare.py makes such ones."""
    noise = (0.01, -0.01, 0.0)
    runs = [one for s in range(3) for one in (run("a", s, 0.9), run("b", s, 0.5 + noise[s]))]
    [found] = verdicts(summarise(runs, ["a", "b"], "a"))
    assert found.kind == BETTER
    assert "validation loss −0.400 [−0.4" in found.sentence


def test_one_seed_says_so():
    found = summarise(pairs({"x": 0.3}, seeds=1), ["a", "b"], "a")
    [verdict] = verdicts(found)
    assert verdict.kind == ONE_SEED
    assert "x: exact match +0.301" in verdict.sentence
    assert "[" not in verdict.sentence
    assert caveat(found).startswith("One seed has no interval and no test")
    table = next(table for table in all_tables(found, {}) if table.caption.startswith("Scores"))
    assert table.rows[1] == ("x: exact match", "b", "0.801", "–", "+0.301", "–", "–", "–", "1")


def test_few_and_many_seeds():
    assert caveat(summarise(pairs({"x": 0.1}), ["a", "b"], "a")).startswith("4 seeds prove little")
    many = [run(m, s, x=0.5) for s in range(5) for m in "ab"]
    assert caveat(summarise(many, ["a", "b"], "a")) == ""
    assert caveat(summarise([], ["a"], "a")) == ""


def test_seeds_apart_are_nothing_to_compare():
    [found] = verdicts(summarise([run("a", 0, x=0.5), run("b", 1, x=0.6)], ["a", "b"], "a"))
    assert (found.kind, found.sentence) == (NOTHING, "b and a have no seed in common.")
    assert summarise([], ["a", "b"], "a").methods == ()


def test_a_seed_in_common_and_no_quantity():
    """Kappa alone says of no method that it is better."""
    summary = summarise([run("a", 0, None), run("b", 0, None)], ["a", "b"], "a")
    [found] = verdicts(summary)
    assert found.kind == NOTHING
    assert found.sentence.startswith("b and a have no quantity in common that says which is better: no score")
    nothing = [run(method, 0, None, None, None) for method in "ab"]
    assert "no quantity in common" in verdicts(summarise(nothing, ["a", "b"], "a"))[0].sentence
    assert [row[1] for row in overview(summary, {}).rows] == ["1", "1"]


def test_learning_rates_stand_beside_their_methods():
    settings = {"a": {"train.learning_rate": 1e-3}, "b": {"train.learning_rate": 2.5e-5}}
    table = overview(summarise(three(), ["a", "b"], "a"), settings)
    assert table.header[:3] == ("method", "learning rate", "seeds")
    assert [row[1] for row in table.rows] == ["0.001", "2.5e-05"]
    mapped = {"a": {"train.learning_rate.llm": 1e-3, "train.learning_rate.projector": 0.1}}
    assert overview(summarise(three(), ["a"], "a"), mapped).rows[0][1] == "llm 0.001, projector 0.1"
    assert differing(settings).rows == (("train.learning_rate", "0.001", "2.5e-05"),)
    assert overview(summarise(three(), ["a", "b"], "a"), {}).header[1] == "seeds"


def test_csv_has_every_digit_and_every_seed():
    found = summarise(three(HOSTILE), ["a", HOSTILE], "a")
    rows = list(csv.DictReader(io.StringIO(comma_separated(found, [0, 1, 2]))))
    row = next(row for row in rows if row["method"] == HOSTILE and row["task"] == "vqa")
    cell = found.cell(HOSTILE, Quantity("exact_match", "vqa"))
    assert [float(row[f"seed_{seed}"]) for seed in range(3)] == [0.6, 0.71, 0.79]
    assert float(row["p"]) == cell.difference.p
    assert (float(row["low"]), float(row["high"])) == (cell.estimate.low, cell.estimate.high)
    assert (row["against"], row["kind"]) == ("a", "difference")
    assert {row["table"] for row in rows} == {"scores", "training", "deltas"}
    assert next(row for row in rows if row["quantity"] == "mean kappa" and row["method"] != "a")["kind"] == "ratio"


def test_latex_prints_a_hostile_name_and_keeps_its_columns():
    found = summarise(three(HOSTILE), ["a", HOSTILE], "a")
    text = latex(all_tables(found, {"a": {}, HOSTILE: {}}))
    assert escape_latex(HOSTILE) in text
    assert HOSTILE not in text
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line != r"\midrule"]
        widths = {len(re.findall(r"(?<!\\)&", line)) for line in lines}
        assert len(widths) == 1
        assert all(line.endswith(r" \\") for line in lines)
        # What begins a row after \\ would be its argument.
        assert not any(line.startswith(("[", "*")) for line in lines)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert r"\end{tabular}" in text


def test_latex_escapes_by_hand():
    assert escape_latex(r"a_b & 5% $#{}") == r"a\_b \& 5\% \$\#\{\}"
    assert escape_latex("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert escape_latex("a--b---c-1") == "a-{}-b-{}-{}-c-1"
    assert escape_latex("[x]*") == "{[}x{]}{*}"
    assert escape_latex("−1 ± 2×") == r"$-$1 $\pm$ 2$\times$"
    assert escape_latex("a\u202eb\n") == r"a\textbackslash{}u202eb\textbackslash{}n"


def test_markdown_shows_a_hostile_name_as_it_is():
    found = summarise(three(HOSTILE), ["a", HOSTILE], "a")
    text = markdown(all_tables(found, {}), verdicts(found), caveat(found))
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert escape_markdown("a|b_c*<d>`[e]\\") == r"a\|b\_c\*&lt;d&gt;\`\[e\]" + "\\\\"
    assert escape_markdown("a\nb") == "a\\\\nb"
