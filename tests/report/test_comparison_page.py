"""A comparison's page: what it shows, what it says is missing, and that nothing in the folder is taken on trust."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
from _html_page import Page
from _synthetic_comparison import write_comparison
from _synthetic_runs import around, log_lines, write_run

from equipoise.errors import RunError
from equipoise.report import report_on
from equipoise.report.comparison.view import ComparisonView, view_comparison

FIGURES = [
    "scores", "final-loss", "loss", "kappa", "kappa-summed", "learning-step", "gradient", "learning-rate", "task-loss",
]  # fmt: skip
HOSTILE = "<script>alert(1)</script> & \"'\u202e"


def page_of(folder: Path) -> Page:
    return Page(report_on([folder]).read_text(encoding="utf-8"))


def chart(page: Page, name: str) -> dict:
    return next(found for found in page.charts if found["id"] == name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("comparison") / "mine")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return page_of(folder)


def test_every_figure_has_its_place_and_its_traces(page):
    assert [found["id"] for found in page.charts] == FIGURES
    places = [attributes["id"] for attributes in page.all("div") if attributes.get("class") == "plot"]
    assert places == FIGURES
    assert all(found["data"] for found in page.charts)


def test_curves_have_a_mean_and_a_band_for_each_method(folder, page):
    traces = chart(page, "kappa")["data"]
    assert [trace["name"] for trace in traces if trace.get("fill") != "toself"] == ["constant", "commit-clr", "commit"]
    assert [trace["meta"]["run"] for trace in traces if trace.get("fill") == "toself"] == [0, 1, 2]
    band = view_comparison(folder).curves["kappa_average"]["commit"]
    assert band.seeds == 3
    assert all(low <= mean <= high for low, mean, high in zip(band.low, band.mean, band.high, strict=True))
    shape = next(trace for trace in traces if trace.get("fill") == "toself")
    assert len(shape["x"]) == 2 * len(set(shape["x"]))


def test_scores_show_every_seed_and_an_interval(page):
    traces = chart(page, "scores")["data"]
    assert len(traces) == 2 * 2 * 3  # seeds and mean, of two tasks, by three methods
    seeds, mean = traces[:2]
    assert len(seeds["x"]) == 3
    assert mean["x"][0] == pytest.approx(sum(seeds["x"]) / 3, rel=1e-5)
    assert mean["error_x"]["array"][0] > 0


def test_the_verdict_stands_first_with_its_interval(folder, page):
    assert "Better on 2 of 2 scores" in page.text
    assert "Against constant: better on vqa: exact match +0.0" in page.text
    assert "3 seeds prove little" in page.text
    for words in ("p (Holm)", "Scores by task and method", "What the methods differ in", "Delta I %"):
        assert words in page.text
    boxes = [attributes["value"] for attributes in page.all("input")]
    assert boxes == ["0", "1", "2"]
    assert "<legend>Methods</legend>" in report_on([folder]).read_text(encoding="utf-8")


def test_the_same_folder_gives_the_same_bytes(folder):
    first = report_on([folder]).read_bytes()
    assert report_on([folder]).read_bytes() == first
    assert b"src=" not in first.split(b"<script>")[0]


def test_one_seed_has_no_band_and_no_interval(tmp_path):
    page = page_of(write_comparison(tmp_path / "one", seeds=[0], tasks=["vqa"]))
    assert "One seed: nothing can be shown" in page.text
    assert not any(trace.get("fill") == "toself" for found in page.charts for trace in found["data"])
    assert not any("array" in (trace.get("error_x") or {}) for trace in chart(page, "scores")["data"])
    assert "task-loss" not in [found["id"] for found in page.charts]


def test_a_begun_comparison_says_what_is_missing(tmp_path):
    page = page_of(write_comparison(tmp_path / "begun", done=4))
    first = "commit-clr with seed 1, commit with seed 1, constant with seed 2, commit-clr with seed 2"
    assert f"5 of 9 runs: {first} and 1 more" in page.text
    page = page_of(write_comparison(tmp_path / "empty", done=0))
    assert "Nothing can be said before two methods have been run with the same seed." in page.text
    assert "No scores yet." in page.text
    assert page.charts == []


def test_one_method_is_shown_by_itself(tmp_path):
    page = page_of(write_comparison(tmp_path / "one", methods=["commit"]))
    assert "One method, commit: nothing to compare it with." in page.text
    assert "kappa" in [found["id"] for found in page.charts]


def test_many_methods_are_drawn_as_far_as_colours_reach(tmp_path):
    methods = [f"m{number}" for number in range(10)]
    page = page_of(write_comparison(tmp_path / "many", methods=methods, seeds=[0, 1], steps=20))
    names = [trace["name"] for trace in chart(page, "kappa")["data"] if trace.get("fill") != "toself"]
    assert names == methods[:8]
    assert "Only the first 8 methods are drawn, without m8, m9." in page.text
    assert len(page.all("input")) == 8
    assert {trace["meta"]["run"] for trace in chart(page, "scores")["data"]} == set(range(10))


def test_hostile_names_are_text(tmp_path):
    folder = write_comparison(
        tmp_path / "x", methods=["constant", HOSTILE], tasks=[HOSTILE, "<b>"], seeds=[0, 1], steps=20
    )
    page = page_of(folder)
    assert "<script>alert(1)</script> & \"'\\u202e" in page.text
    assert not page.all("b")
    assert "\u202e" not in report_on([folder]).read_text(encoding="utf-8")
    for found in page.charts:
        for trace in found["data"]:
            assert "<script>" not in trace.get("name", "")
    assert len(page.scripts) == 3


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "null", '{"runs": 3, "methods": "a", "seeds": {}, "settings": [], "baseline": 7}',
        '{"runs": [null, 1, {}, {"method": 1, "seed": 0, "nodes": ["x"]}, {"method": "a", "seed": "b"}]}',
        '{"methods": ["a"], "runs": [{"method": "a", "seed": 0, "nodes": [".."], "scores": {"t": 3, "u": {"m": ""}}}]}',
        '{"runs": [{"method": "a", "seed": 0, "nodes": ["x"], "kappa": -1, "step_time": 0, "scores": 1e999}]}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_no_error(tmp_path, content):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "comparison.json").write_text(content, encoding="utf-8")
    assert "Not there: " in page_of(tmp_path / "x").text


def of_one_node(folder: Path, node: str) -> ComparisonView:
    plain = json.loads((folder / "comparison.json").read_text())
    plain["runs"] = [{"method": "constant", "seed": 0, "nodes": [node], "scores": {}}]
    (folder / "comparison.json").write_text(json.dumps(plain))
    return view_comparison(folder)


def test_a_node_that_leads_out_of_the_folder_is_not_read(tmp_path):
    """There is a log in each of these places."""
    folder, lines = write_comparison(tmp_path / "in", done=0), log_lines({"llm": around(0, 0.3)})
    outside = write_run(tmp_path / "outside", lines).path
    for place in (folder, folder / "nodes", folder / "nodes" / "own", folder / "nodes" / "own" / "below"):
        shutil.copytree(outside, place, dirs_exist_ok=True)
    (folder / "nodes" / "link").symlink_to(outside)
    (folder / "nodes" / "circle").symlink_to("circle")
    assert of_one_node(folder, "own").curves
    for node in (
        "../../outside", str(outside), "..", "", ".", "own/below", "link", "circle", "n" * 300, "a\0b",
    ):  # fmt: skip
        view = of_one_node(folder, node)
        assert view.curves == {}, node
        assert "the logs of constant with seed 0" in view.missing


def test_many_methods_and_seeds_are_counted_and_not_listed(tmp_path):
    many = list(range(2000))
    runs = [{"method": f"m{i}", "seed": i, "nodes": ["x"], "scores": {"t": {"m": 0.5}}} for i in (0, 0, 1999)]
    folder = write_comparison(tmp_path / "many", [f"m{i}" for i in many], many, done=0, runs=runs)
    tracemalloc.start()
    try:
        view = view_comparison(folder)
        largest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest < 20e6
    assert (len(view.methods), len(view.seeds)) == (1000, 1000)
    assert list(view.missing)[:3] == [
        "1000 methods after the first 1,000",
        "1000 seeds after the first 1,000",
        "999999 of 1000000 runs: m1 with seed 0, m2 with seed 0, m3 with seed 0, m4 with seed 0 and 999995 more",
    ]
    assert view.summary.methods == ("m0",)


def test_a_long_run_is_thinned_and_keeps_its_spike(tmp_path):
    folder = write_comparison(tmp_path / "long", methods=["constant"], seeds=[0, 1], tasks=["vqa"], done=0)
    runs = []
    for seed in (0, 1):
        lines = [{"step": step, "loss": 1.0, "lr/llm": 1e-4} for step in range(1, 20_001)]
        lines[12_345]["lr/llm"] = 5e-3
        write_run(folder / "nodes" / f"constant@{seed}-0", lines)
        runs.append({"method": "constant", "seed": seed, "nodes": [f"constant@{seed}-0"], "scores": {}})
    plain = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps({**plain, "runs": runs}))
    band = view_comparison(folder).curves["lr/llm"]["constant"]
    assert len(band.steps) <= 600
    assert max(band.mean) == pytest.approx(5e-3)
    assert dict(zip(band.steps, band.mean, strict=True))[12_346] == pytest.approx(5e-3)
    assert max(band.high) == 5e-3
    assert band.mean[0] == pytest.approx(1e-4, rel=1e-12)


def test_a_comparison_stands_alone(folder, tmp_path):
    run = write_run(tmp_path / "run", log_lines({"llm": around(0, 0.3)})).path
    for folders in ([run, folder], [folder, run], [folder, folder]):
        with pytest.raises(RunError, match=r"mine is a comparison and has a report of its own; allowed are run direct"):
            report_on(folders)
    assert report_on([folder], tmp_path / "elsewhere.html") == tmp_path / "elsewhere.html"
