"""Settings in the report: where runs differ, by path; versions; recipes that are none."""

import json

from _html_page import Page
from _synthetic_runs import write_run

from equipoise.report.settings import settings_section
from equipoise.report.view import view_all


def section(*runs):
    return Page(settings_section(view_all(runs))).text


def recipe(rate=1e-4, schedule="commit", tasks=("a", "b")):
    return {
        "balance": {"modules": {"schedule": schedule}},
        "tasks": [{"name": name, "reader": "jsonl", "options": {"n": [1, 2]}} for name in tasks],
        "train": {"learning_rate": rate},
    }


def test_only_what_differs_is_in_the_table(tmp_path):
    runs = [
        write_run(tmp_path / "x", [], recipe=recipe()),
        write_run(tmp_path / "y", [], recipe=recipe(2e-4, "constant", ("b", "c"))),
    ]
    table = section(*runs).partition("resolved recipe")[0]
    for row in ("balance.modules.schedulecommitconstant", "train.learning_rate0.00010.0002", "tasks.a.readerjsonl–"):
        assert row in table
    assert "tasks.c.options.n–[1, 2]" in table
    assert "tasks.b" not in table


def test_one_run_and_like_runs_have_no_table(tmp_path):
    runs = [write_run(tmp_path / name, [], recipe=recipe()) for name in "xy"]
    assert "differ" not in section(runs[0])
    assert "The runs' recipes are the same." in section(*runs)


def test_versions_are_said_once_where_all_are_alike(tmp_path):
    runs = [write_run(tmp_path / name, [], recipe=recipe()) for name in "xy"]
    for run, torch in zip(runs, ("2.13", "2.13"), strict=True):
        (run.path / "environment.json").write_text(json.dumps({"torch": torch, "device": "cpu"}))
    assert section(*runs).count("Made with torch 2.13, device cpu.") == 1
    (runs[1].path / "environment.json").write_text(json.dumps({"torch": "2.14"}))
    assert "y was made with torch 2.14." in section(*runs)


def test_recipes_that_are_none(tmp_path):
    texts = ("tasks: [", "when: 2026-02-31\n", "- 1\n- {name: [a]}\n", "", "[" * 5_000)
    runs = [write_run(tmp_path / str(n), []) for n in range(len(texts))]
    for run, text in zip(runs, texts, strict=True):
        run.recipe_file.write_text(text)
    assert "4: resolved recipe" in section(*runs)
