"""Reading runs: labels, columns, and what is missing."""

import json

import pytest
from _synthetic_runs import around, log_lines, write_run

from equipoise.errors import RunError
from equipoise.report.numbers import number
from equipoise.report.verdict import diagnose
from equipoise.report.view import view_all
from equipoise.training.run_directory import RunDirectory


def test_a_whole_run(tmp_path):
    (view,) = view_all([write_run(tmp_path / "a", log_lines({"llm": around(0, 0.4)}), schedule="commit")])
    assert view.label == "a"
    assert view.method == "commit"
    assert view.modules == ["projector", "llm"]
    assert view.step_ratio == pytest.approx(1.3)
    assert view.validation_loss == pytest.approx(0.4137)
    assert view.missing == []
    assert view.steps == 60


def test_nothing_but_an_empty_folder(tmp_path):
    (view,) = view_all([RunDirectory(tmp_path)])
    assert view.method is None
    assert view.validation_loss is None
    assert view.step_ratio is None
    assert len(view.missing) == 6


def test_damaged_files_count_as_missing(tmp_path):
    run = write_run(tmp_path / "a", [])
    run.metrics_file.write_text('{"step": 1, "loss": 2.0}\n[1]\n"x"\n{"step": 2, "loss": null}\n{"step": 3, "lo')
    run.timings_file.write_text(
        '{"step": 1, "step_seconds": 1.0}\n{"step": 2, "step_seconds": 0, "balance_seconds": 0}\n'
    )
    run.scores_file.write_text("{")
    (run.path / "modules.json").write_text('{"not": "a list"}')
    run.recipe_file.write_text("balance: [")
    (view,) = view_all([run])
    assert view.column("loss") == ([1.0], [2.0])
    assert view.method is None
    assert view.scores == {}
    assert any("scores.json" in words for words in view.missing)
    assert any("no kappa" in words for words in view.missing)


def test_odd_scores(tmp_path):
    run = write_run(tmp_path / "a", [], scores={"tasks": {"x": 3, "y": {"value": None}}, "validation_loss": "low"})
    (view,) = view_all([run])
    assert view.tasks == {"y": {"value": None}}
    assert view.validation_loss is None


def test_labels_differ(tmp_path):
    runs = [write_run(tmp_path / name / "seed0", []) for name in ("commit", "constant")]
    assert [view.label for view in view_all(runs)] == ["commit/seed0", "constant/seed0"]
    assert [view.label for view in view_all([runs[0], runs[0]])] == ["seed0", "seed0 (2)"]


def test_method_names_the_servo(tmp_path):
    recipe = {"balance": {"modules": {"schedule": "commit-clr", "controller": "servo"}}}
    (view,) = view_all([write_run(tmp_path / "a", [], recipe=recipe)])
    assert view.method == "commit-clr, servo"


def test_unmoved_recipe_is_not_validated(tmp_path):
    """A run copied from elsewhere names data folders that are not here; its report can still be written."""
    recipe = {"tasks": [{"path": "/not/here"}], "balance": {"modules": {"schedule": "commit"}}}
    (view,) = view_all([write_run(tmp_path / "a", [], recipe=recipe)])
    assert view.method == "commit"


def test_no_run():
    with pytest.raises(RunError, match="no run"):
        view_all([])


@pytest.mark.parametrize("value", [10**400, 1e308, float("inf"), float("nan"), True, None, "1", [1]])
def test_what_is_no_number(value):
    assert number(value) is None
    assert number(-2) == -2.0


def test_a_log_that_is_no_text_is_missing(tmp_path):
    run = write_run(tmp_path / "a", [])
    run.metrics_file.write_bytes(b"\xff\xfe")
    (view,) = view_all([run])
    assert "no step was logged (metrics.jsonl)" in view.missing


def test_numbers_only(tmp_path):
    run = write_run(tmp_path / "a", [{"step": 1, "loss": True, "kappa": 2}, {"lr/llm": 1.0}])
    run.metrics_file.write_text(run.metrics_file.read_text() + json.dumps({"step": 2, "kappa": float("nan")}) + "\n")
    (view,) = view_all([run])
    assert view.columns == {"kappa": ([1.0], [2.0])}


def test_the_verdict_is_that_of_the_whole_log(tmp_path):
    """The view keeps of each line what the verdict reads, and drops the rest."""
    for place, (centre, moving) in enumerate([(2.2, False), (-2.5, True), (0.1, True)]):
        log = log_lines({"vision_tower": around(0, 0.2), "llm": around(centre, 0.4)}, moving=moving)
        run = write_run(tmp_path / str(place), log)
        (view,) = view_all([run])
        assert view.verdict == diagnose(run.metrics())
        assert view.verdict.name != "not enough measurements"
