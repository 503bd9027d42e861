"""`equipoise diagnose` on folders: finished, half-written, without a recipe, a balance; its JSON, its mistakes."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import pytest

from _commands import Run, runner
from equipoise.recipe_reading import load_recipe
from equipoise.tasks.plan import FINAL
from report._synthetic_runs import around, log_lines, write_run
from report._task_lines import TASKS, with_tasks

NINE = [math.log(9.0)] * 40


@pytest.fixture
def diagnose(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner("diagnose", monkeypatch, capfd)


def test_a_biased_run_ends_with_a_command_to_paste(diagnose, tmp_path):
    run = write_run(tmp_path / "run", log_lines({"llm": NINE}))
    status, out, errors = diagnose(run.path)
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("biased toward the LLM: kappa is about 9: the LLM outruns the projector")
    assert lines[1] == "  run: 40 steps; kappa 9, std of log kappa 0, 30 measurements"
    assert lines[2] == "What to do:"
    assert "    'train.learning_rate={projector: 0.0001, llm: 3.3e-05}'" in lines
    assert "    or balance.modules.schedule=commit-clr" in lines
    command = shlex.split(lines[-1])
    assert command[:2] == ["equipoise", "train"]
    recipe = load_recipe(Path(command[2]), [word for word in command[3:] if "=" in word])
    assert recipe.train.learning_rate == {"projector": 1e-4, "llm": 3.3e-05}


def test_json_says_the_same(diagnose, tmp_path):
    lines = with_tasks(log_lines({"llm": NINE}), TASKS)
    status, out, _ = diagnose(write_run(tmp_path / "run", lines).path, "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["run"], found["steps"], found["finished"]) == ("run", 40, True)
    assert found["verdict"]["name"] == "biased toward the LLM"
    assert found["verdict"]["kappa"] == pytest.approx(9.0)
    assert found["verdict"]["lower"] == {"llm": pytest.approx(3.0)}
    assert found["tasks"]["starving"] == ["chat"]
    assert [entry["overrides"] for entry in found["to_do"]] == [
        ["train.learning_rate={projector: 0.0001, llm: 3.3e-05}"],
        ["balance.tasks.weighter=fixed", "balance.tasks.weights={chat: 5.0}"],
    ]


def test_a_run_that_is_being_written_is_read_as_far_as_it_is(diagnose, tmp_path):
    run = write_run(tmp_path / "run", log_lines({"llm": NINE}))
    run.done_file.unlink()
    with run.metrics_file.open("a", encoding="utf-8") as log:
        log.write('{"step": 41, "kappa": 0.00')
    status, out, errors = diagnose(run.path)
    assert (status, errors) == (0, "")
    assert "run: 40 steps, training has not finished; kappa 9" in out


def test_a_log_of_attach_is_answered_in_python(diagnose, tmp_path):
    run = write_run(tmp_path / "out", log_lines({"llm": NINE}))
    for file in (run.recipe_file, run.done_file, run.path / "modules.json", run.scores_file):
        file.unlink()
    status, out, _ = diagnose(run.path)
    assert status == 0
    assert "out: 40 steps; kappa 9" in out
    (rates,) = re.findall(r"attach\(trainer, \.\.\., learning_rates=(\{.*\})\)", out)
    assert json.loads(rates.replace("'", '"'))["llm"] == pytest.approx(1e-4 / 3, rel=0.05)
    assert 'or Coordination("commit-clr")' in out
    assert "train.learning_rate" not in out


def test_a_balanced_run_has_nothing_to_do(diagnose, tmp_path):
    _, out, _ = diagnose(write_run(tmp_path / "run", log_lines({"llm": around(0.1, 0.3)})).path)
    assert "nothing to change" in out
    assert "What to do" not in out


def test_a_balance_says_who_helps_and_its_weights(diagnose, tmp_path):
    folder = tmp_path / "balance"
    write_run(folder / "nodes" / f"{FINAL}-00", log_lines({"llm": NINE}))
    found = {
        "tasks": ["a", "b"], "contributions": [[1.0, 0.5], [-0.25, 1.0]], "one2all": {"a": 0.5, "b": -0.25},
        "all2one": {"a": -0.25, "b": 0.5}, "difficulty": {"a": 0.3, "b": 0.1},
        "weights": {"cotbal": {"a": 1.25, "b": 0.75}},
    }  # fmt: skip
    (folder / "balance.json").write_text(json.dumps(found), encoding="utf-8")
    status, out, _ = diagnose(folder)
    assert status == 0
    assert "Who gives: a helps the others most" in out
    assert "a is helped least" in out
    assert "biased toward the LLM" in out
    assert out.splitlines()[-1] == "  balance.tasks.weighter=cotbal 'balance.tasks.weights={a: 1.25, b: 0.75}'"
    _, out, _ = diagnose(folder, "--json")
    assert json.loads(out)["runs"][0]["verdict"]["name"] == "biased toward the LLM"


def test_following_a_finished_run_says_it_once(diagnose, tmp_path):
    run = write_run(tmp_path / "run", log_lines({"llm": NINE}))
    status, out, _ = diagnose(run.path, "--follow")
    assert status == 0
    assert out.splitlines()[0] == "step 40, kappa 9: biased toward the LLM"
    assert out.splitlines()[1].startswith("biased toward the LLM: kappa is about 9")
    status, out, _ = diagnose(run.path, "--follow", "--json")
    assert [json.loads(line)["verdict"]["name"] for line in out.splitlines()] == ["biased toward the LLM"]


def test_following_what_ended_without_a_step_says_what_the_plain_form_says(diagnose, tmp_path):
    (tmp_path / "done.json").write_text("{}", encoding="utf-8")
    plain, followed = diagnose(tmp_path), diagnose(tmp_path, "--follow")
    assert followed == plain
    assert (plain[0], plain[1]) == (2, "")
    assert "has no metrics.jsonl and no recipe.yaml" in plain[2]
    run = write_run(tmp_path / "run", [])
    status, out, errors = diagnose(run.path, "--follow")
    assert (status, errors) == (0, "")
    assert "waiting" not in out
    assert "not enough measurements" in out


def test_names_that_steer_a_terminal_are_escapes(diagnose, tmp_path):
    log = with_tasks(log_lines({"llm": NINE}), {**TASKS, "\x1b[2J[red]‮": (2.5, 2.45, 5, 1.0)})
    _, out, _ = diagnose(write_run(tmp_path / "run", log).path)
    assert "[red]" in out
    assert "\x1b" not in out
    assert "‮" not in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train.seed=1"], "diagnose: KEY=VALUE is for a recipe, which is trained"),
        (["--seed", "0"], "diagnose: --seed is for a recipe"),
        (["--out", "x"], "diagnose: --out is for a recipe"),
        (["--resume"], "diagnose: --resume is for a recipe"),
    ],
)
def test_what_is_for_a_recipe_alone(diagnose, tmp_path, arguments, line):
    run = write_run(tmp_path / "run", log_lines({"llm": NINE}))
    status, out, errors = diagnose(run.path, *arguments)
    assert (status, out) == (2, "")
    assert line in errors
    assert errors.count("\n") == 1


def test_a_recipe_cannot_be_followed(diagnose, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.touch()
    status, _, errors = diagnose(file, "--follow")
    assert status == 2
    assert f"diagnose: --follow is for the folder of a run; {file} is a file" in errors


def test_a_folder_that_is_no_run(diagnose, tmp_path):
    status, _, errors = diagnose(tmp_path)
    assert status == 2
    assert f"{tmp_path} has no metrics.jsonl and no recipe.yaml; allowed are a recipe, a run, or a balance" in errors


def test_a_comparison_points_to_its_runs(diagnose, tmp_path):
    (tmp_path / "comparison.json").write_text("{}", encoding="utf-8")
    status, _, errors = diagnose(tmp_path)
    assert status == 2
    assert f"is a comparison, see `equipoise report`; diagnose a folder of {tmp_path / 'nodes'}" in errors
