"""The page: self-contained, safe with hostile names, complete with missing files."""

import json
import re
from itertools import pairwise

import pytest
from _html_page import Page
from _synthetic_runs import around, log_lines, write_run

from equipoise.errors import RunError
from equipoise.report import build_report
from equipoise.report.palette import DARK, HARM_DARK, HARM_LIGHT, HELP_DARK, HELP_LIGHT, LIGHT
from equipoise.training.run_directory import RunDirectory


def report(tmp_path, *runs: RunDirectory) -> Page:
    target = build_report(runs, tmp_path / "out" / "report.html")
    return Page(target.read_text(encoding="utf-8"))


@pytest.fixture
def three(tmp_path):
    return [
        write_run(tmp_path / "constant", log_lines({"llm": around(2.2, 0.4)})),
        write_run(tmp_path / "commit", log_lines({"llm": around(0.1, 0.4)}, moving=True), schedule="commit"),
        write_run(tmp_path / "swings", log_lines({"llm": around(0.0, 2.0)})),
    ]


def test_one_run(tmp_path, three):
    page = report(tmp_path, three[0])
    for words in (
        "Biased toward the LLM",
        "0.830",
        "0.370",
        "0.520",
        "1.30×",
        "exact match",
        "134,515,008",
        "embedded:smol-vlm",
    ):
        assert words in page.text
    assert [chart["id"] for chart in page.charts] == [
        "kappa",
        "drift",
        "learning-rate",
        "loss",
        "gradient",
        "learning-step",
        "lambda",
    ]
    assert not page.all("fieldset")


def test_samples_that_were_left_out_are_counted(tmp_path, three):
    page = report(tmp_path, three[0])
    at = page.text.index("Samples read and left out")
    assert re.search(r"vqa\s*train\s*constant\s*2,000\s*3\s", page.text[at:])
    assert "Left out: vqa, train, constanttask vqa: sample 7: a.png: brokenand 2 more" in page.text


@pytest.mark.parametrize("data", [[], {"train": []}, {"train": {"vqa": []}}, {"train": {"vqa": {"flaws": None}}}])
def test_a_data_file_of_another_form(tmp_path, data):
    run = write_run(tmp_path / "odd", log_lines({"llm": around(0, 0.3)}))
    run.data_file.write_text(json.dumps(data), encoding="utf-8")
    assert "Settings" in report(tmp_path, run).text


def test_several_runs_share_a_legend(tmp_path, three):
    page = report(tmp_path, *three)
    for words in ("Biased toward the LLM", "Balanced", "Oscillating"):
        assert words in page.text
    assert [box["value"] for box in page.all("input")] == ["0", "1", "2"]
    assert all(chart["layout"]["showlegend"] is False for chart in page.charts)
    assert page.text.count("Modules of constant, commit, swings") == 1


def test_the_legend_stays_in_sight_in_all_sections_with_figures(tmp_path, three):
    page = report(tmp_path, *three)
    names = [tag for tag, _ in page.elements]
    before = names[: names.index("fieldset")]
    assert before.count("section") == 1  # the verdict's, closed: it sticks within main
    assert page.nesting["fieldset"] == "main"


def test_same_runs_same_bytes(tmp_path, three):
    first, second = (build_report(three, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_nothing_is_loaded_from_elsewhere(tmp_path, three):
    page = report(tmp_path, *three)
    assert {link["href"] for link in page.all("a")} == {f"#{heading['id']}" for heading in page.all("h2")}
    for tag, attributes in page.elements:
        assert not {"srcset", "data", "action", "background", "poster"} & set(attributes), tag
        assert (attributes.get("src") or "data:").startswith("data:"), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert not page.all("link")
    assert not re.search(r"url\(|@import", "".join(page.styles))
    assert len(page.scripts) == 3  # the figures, plotly once, our own
    assert "http" not in page.scripts[0] + page.scripts[2]
    assert "showSendToCloud: false" in page.scripts[2]
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_hostile_names_are_text(tmp_path):
    evil = "<script>alert(1)</script>"
    log = log_lines({"llm": around(2, 0.3), f"{evil}": around(0, 0.3)}, reference='"><img src=x onerror=alert(2)>')
    scores = {"split": evil, "tasks": {evil: {"metric": evil, "value": 0.5, "samples": evil}}}
    modules = [{"module": evil, "kind": "</table>" + evil}]
    recipe = {"balance": {"modules": {"schedule": "</pre>" + evil}}}
    data = {evil: {evil: {"samples": evil, "skipped": evil, "flaws": [evil]}}}
    names = ("<svg onload=alert(3)>", '" onmouseover="alert(4)')
    runs = [write_run(tmp_path / n, log, scores=scores, data=data, modules=modules, recipe=recipe) for n in names]
    page = report(tmp_path, *runs)
    assert len(page.all("script")) == 3
    assert not page.all("img")
    assert not page.all("svg")
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert page.text.count(evil) >= 14
    assert "<" not in page.scripts[0]
    assert all("<" not in trace["name"] for chart in page.charts for trace in chart["data"])


def test_missing_files_are_named(tmp_path, three):
    going = write_run(tmp_path / "going", log_lines({"llm": [0.1, 0.2, 0.3]}))
    for file in (going.done_file, going.scores_file, going.timings_file, going.data_file, going.path / "modules.json"):
        file.unlink()
    page = report(tmp_path, going)
    for words in (
        "Not enough measurements",
        "training has not finished",
        "not evaluated",
        "no step times",
        "No scores",
        "No run wrote down what it read",
    ):
        assert words in page.text
    assert "going" in report(tmp_path, three[0], going).text


def test_empty_run(tmp_path):
    empty = RunDirectory(tmp_path / "empty")
    page = report(tmp_path, empty)
    assert page.charts == []
    assert page.text.count("not shown, nothing of it was logged") == 7
    assert "no recipe.yaml" in page.text


def test_a_figure_says_which_run_it_lacks(tmp_path, three):
    bare = write_run(tmp_path / "bare", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    page = report(tmp_path, three[0], bare)
    assert page.text.count("Nothing was logged by bare.") == 6


def test_figures_have_names_and_captions(tmp_path, three):
    page = report(tmp_path, *three)
    plots = [div for div in page.all("div") if div.get("class") == "plot"]
    assert len(plots) == len(page.all("figure")) == len(page.all("figcaption")) == len(page.charts)
    for plot in plots:
        assert plot["role"] == "img"
        assert "constant, commit, swings" in (plot["aria-label"] or "")
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))


def test_claims_report_failures(tmp_path):
    held = {"theory/triangle_holds": 1.0, "theory/gradient_bound_holds/llm": 1.0, "theory/lambda": 1.1}
    log = [{"step": step, "kappa": 1.0, **held} for step in range(1, 9)]
    log[3]["theory/lambda"] = 1.0  # not above 1
    text = report(tmp_path, write_run(tmp_path / "a", log)).text
    assert "held on 7 of 8 (87.5 %), so not throughout" in text
    assert text.count("held: 8 of 8") == 2
    assert "fitted" not in text


def test_three_modules(tmp_path):
    log = log_lines({"vision_tower": around(-1.5, 0.3), "llm": around(0.5, 0.3)})
    text = report(tmp_path, write_run(tmp_path / "a", log)).text
    assert "least balanced pair: a: llm over vision_tower" in text


def test_no_run(tmp_path):
    with pytest.raises(RunError):
        build_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_lines_stand_out_from_the_page():
    """WCAG asks 3:1 of graphics."""
    assert all(_contrast(colour, "#ffffff") >= 3 for colour in LIGHT)
    assert all(_contrast(colour, "#15181b") >= 4.5 for colour in DARK)


def test_numbers_can_be_read_on_the_scale_of_contributions():
    """WCAG asks 4.5:1 of text."""
    assert all(_contrast(colour, "#1f2428") >= 4.5 for colour in (HARM_LIGHT, "#f6f7f8", HELP_LIGHT))
    assert all(_contrast(colour, "#e3e6e9") >= 4.5 for colour in (HARM_DARK, "#1c2024", HELP_DARK))
