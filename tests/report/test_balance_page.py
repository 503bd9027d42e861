"""A balance's page: whole, with pieces missing, with hostile names."""

import json
import re
import shutil
from itertools import pairwise

import pytest
from _html_page import Page
from _synthetic_balance import TASKS, probe_scores, task_lines, write_balance, write_node

from equipoise.report import build_balance_report

FIGURES = ["contributions", "difficulty", "score-by-data", "weights-by-task", "radar", "task-loss", "weights-over-time"]


def report(folder) -> Page:
    return Page(build_balance_report(folder).read_text(encoding="utf-8"))


def shown(page: Page) -> list[str]:
    return [chart["id"] for chart in page.charts]


@pytest.fixture
def whole(tmp_path):
    return write_balance(tmp_path / "b")


def test_whole(whole):
    page = report(whole)
    assert shown(page) == FIGURES
    captions = (
        "Contributions",
        "Weights",
        "Methods",
        "Validation scores",
        "Tasks in training",
        "Settings of the balance",
    )
    for caption in captions:
        assert page.text.count(caption) >= 1
    for words in ("helps the others most", "is hardest", "ΔI", "mini fraction", "0.125", "cotbal-T2", "box+mini"):
        assert words in page.text
    assert "Not there" not in page.text
    assert "Cost of each run" not in page.text  # no costs.json


def test_best_of_each_column_is_marked(whole):
    page = report(whole)
    assert page.text.count("(best)") >= len(TASKS) + 2
    assert len(page.all("strong")) == page.text.count("(best)")


def test_where_all_are_equal_none_is_best(whole):
    results = json.loads((whole / "results.json").read_text())
    results["test"] = dict.fromkeys(results["test"], results["test"]["ew"])
    results["deltas"] = {}
    (whole / "results.json").write_text(json.dumps(results))
    assert "(best)" not in report(whole).text


def test_the_baseline_does_not_win_delta_e(whole):
    results = json.loads((whole / "results.json").read_text())
    for delta in results["deltas"].values():
        delta["delta_e"] = 5.0 if delta is not results["deltas"]["ew"] else 4.0
    (whole / "results.json").write_text(json.dumps(results))
    assert re.search(r"4\.00 \(best\)", report(whole).text)


def test_elements_have_one_name_each(whole):
    page = report(whole)
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert set(shown(page)) <= set(names)


def test_figures_have_names_captions_and_tables(whole):
    page = report(whole)
    plots = [div for div in page.all("div") if div.get("class") == "plot"]
    assert len(plots) == len(page.all("figure")) == len(page.all("figcaption")) == len(FIGURES)
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    frames = [div for div in page.all("div") if div.get("role") == "region"]
    assert all(div["tabindex"] == "0" and div["aria-label"] for div in frames)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))


def test_same_folder_same_bytes(whole, tmp_path):
    copy = tmp_path / "copy" / "b"
    shutil.copytree(whole, copy)
    assert build_balance_report(whole).read_bytes() == build_balance_report(copy).read_bytes()


def test_a_second_report_replaces_the_first(whole):
    build_balance_report(whole)
    assert build_balance_report(whole) == whole / "report.html"
    assert not [path for path in whole.iterdir() if path.name.startswith(".")]


def test_nothing_is_loaded_from_elsewhere(whole):
    page = report(whole)
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "data", "action", "background", "poster"} & set(attributes), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert not re.search(r"url\(|@import", "".join(page.styles))
    assert len(page.scripts) == 3
    assert "http" not in page.scripts[0]
    assert "default-src 'none'" in str(page.all("meta"))


def test_the_legend_switches_what_has_a_run(whole):
    page = report(whole)
    assert [box["value"] for box in page.all("input")] == ["0", "1", "2", "3", "4"]
    runs = {chart["id"]: {t.get("meta", {}).get("run") for t in chart["data"]} for chart in page.charts}
    assert runs["radar"] == {None, 0, 1, 2, 3, 4}
    assert runs["task-loss"] == {0, 1, 2, 3, 4}
    assert runs["weights-over-time"] == runs["contributions"] == {None}


def test_a_folder_with_nothing_but_nodes(tmp_path):
    (tmp_path / "nodes").mkdir()
    page = report(tmp_path)
    assert page.charts == []
    for words in (
        "before the weights exist",
        "No weights",
        "No test scores yet",
        "No node has been scored",
        "balance.json",
    ):
        assert words in page.text


@pytest.mark.parametrize("file", ["balance.json", "results.json", "nodes"])
@pytest.mark.parametrize("damaged", [True, False])
def test_a_piece_is_missing(whole, file, damaged):
    path = whole / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if damaged:
        path.write_text("{")
    page = report(whole)
    assert "Not there: " in page.text
    expected = {
        "balance.json": {"radar", "task-loss", "weights-over-time"},
        "results.json": set(FIGURES) - {"radar"},
        "nodes": set(FIGURES) - {"task-loss", "weights-over-time"},
    }
    assert set(shown(page)) == expected[file]


def test_every_key_may_be_missing(whole):
    """Whatever a file lacks, the page is written."""
    for name in ("balance.json", "results.json"):
        content = json.loads((whole / name).read_text())
        for key in content:
            (whole / name).write_text(json.dumps({k: v for k, v in content.items() if k != key}))
            assert report(whole).text
        (whole / name).write_text(json.dumps(content))
    assert shown(report(whole)) == FIGURES


def test_nothing_compared(tmp_path):
    page = report(write_balance(tmp_path / "b", compare=()))
    assert "stands alone" in page.text
    assert "--compare stl" in page.text
    assert not page.all("fieldset")
    assert "no run here changes its weights" in page.text
    assert "task-loss" in shown(page)


def test_two_tasks(tmp_path):
    page = report(write_balance(tmp_path / "b", tasks=("a", "b")))
    assert "it needs three tasks" in page.text
    assert "radar" not in shown(page)


def test_degenerate_tasks_are_flagged_everywhere(tmp_path):
    scores = probe_scores()
    scores["box+mini"]["box"] = scores["mini"]["box"] = 0.0
    folder = write_balance(tmp_path / "b", scores=scores, on_degenerate="zero", zero_for="vqa")
    page = report(folder)
    # Only names of runs hold the bare name.
    names = re.sub(r"box\+mini", "", page.text)
    assert not re.search(r"\bbox\b(?!\*)", names)
    drawn = json.dumps([{**chart["layout"], "data": chart["data"]} for chart in page.charts])
    assert not re.search(r"\bbox\b(?!\*)", drawn)
    assert "undefined" in page.text
    assert "exact match†" in page.text
    assert "Without vqa, where that is 0" in page.text


def test_costs(whole):
    costs = {
        "mini": {"training": 10, "scoring": 5.5}, "ew": {"training": 9, "scoring": None},
        "cotbal": {"training": 20, "scoring": 11},
    }  # fmt: skip
    (whole / "costs.json").write_text(json.dumps({"nodes": costs, "final": "cotbal"}))
    page = report(whole)
    assert re.search(r"mini\s*10\.0\s*5\.5\s*15\.5\s*0\.50×", page.text)
    assert re.search(r"ew\s*9\.0\s*–\s*–\s*–", page.text)
    assert re.search(r"cotbal\s*20\.0\s*11\.0\s*31\.0\s*1\.00×", page.text)
    assert re.search(r"all that is known\s*–\s*–\s*46\.5\s*1\.50×", page.text)


def test_costs_before_the_final_run(whole):
    (whole / "costs.json").write_text(
        json.dumps({"nodes": {"mini": {"training": 10, "scoring": 5}}, "final": "cotbal"})
    )
    assert "cotbal's own time is not known" in report(whole).text


def test_hostile_names_are_text(tmp_path):
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "abc\u202egnp.", "</table><svg onload=x>")
    folder = write_balance(tmp_path / '" onmouseover="alert(4)', tasks=("a", "b", "c", "d"))
    names = dict(zip("abcd", evil, strict=True))
    for file in ("balance.json", "results.json"):
        text = json.dumps(rename(json.loads((folder / file).read_text()), names))
        (folder / file).write_text(text)
    write_node(folder, "tla", task_lines(evil, "dwa"))
    (folder / "costs.json").write_text(json.dumps({"nodes": {evil[0]: {"training": 1}}, "final": evil[1]}))
    page = report(folder)
    assert len(page.all("script")) == 3
    assert not page.all("img")
    assert not page.all("svg")
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert page.text.count(evil[0]) >= 8
    assert "\u202e" not in page.text + json.dumps(page.charts, ensure_ascii=False)
    assert "<" not in page.scripts[0]
    drawn = json.dumps(page.charts).replace("<extra></extra>", "")
    assert "<" not in drawn


def rename(value, names):
    """The value with strings and keys that are a task's name, or a run's of it, renamed."""

    def renamed(text):
        task, plus, rest = text.partition("+")
        return names.get(task, task) + plus + rest

    if isinstance(value, dict):
        return {renamed(key): rename(found, names) for key, found in value.items()}
    if isinstance(value, list):
        return [rename(found, names) for found in value]
    return renamed(value) if isinstance(value, str) else value
