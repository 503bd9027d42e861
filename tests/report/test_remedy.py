"""What to do: the numbers from the verdict and the run's own rates, as overrides that a recipe takes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from _synthetic_runs import BASE_RATE, around, log_lines, write_run
from _task_lines import TASKS, with_tasks

from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.report.remedy import base_rates, even_weights, remedies
from equipoise.report.starving import starvation
from equipoise.report.verdict import diagnose
from equipoise.report.view import RunView, view_one
from equipoise.training.run_directory import RunDirectory


def view(tmp_path, lines: list[dict[str, Any]], name: str = "run", **how: Any) -> RunView:
    return view_one(write_run(tmp_path / name, lines, **how), name)


def taken_by_a_recipe(tmp_path, overrides) -> Recipe:
    """The overrides, over a recipe of the synthetic runs' kind."""
    file = tmp_path / "recipe.yaml"
    content = {"model": {"path": "embedded:smol-vlm"}, "tasks": [{"name": "vqa", "reader": "easy_vqa"}]}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_recipe(file, overrides)


def test_bias_lowers_the_fast_module_by_the_root_of_kappa(tmp_path):
    (found,) = remedies(view(tmp_path, log_lines({"llm": [math.log(9.0)] * 40})))
    assert found.what == "Lower the LLM's learning rate 3x."
    assert found.overrides == ["train.learning_rate={projector: 0.0001, llm: 3.3e-05}"]
    assert found.otherwise == "balance.modules.schedule=commit-clr"
    assert found.code == "attach(trainer, ..., learning_rates={'projector': 0.0001, 'llm': 3.3e-05})"
    recipe = taken_by_a_recipe(tmp_path, [*found.overrides, found.otherwise])
    assert recipe.train.learning_rate == {"projector": BASE_RATE, "llm": 3.3e-05}
    assert recipe.balance.modules.schedule == "commit-clr"


def test_bias_the_other_way_lowers_the_projector(tmp_path):
    (found,) = remedies(view(tmp_path, log_lines({"llm": [-math.log(16.0)] * 40})))
    assert found.overrides == ["train.learning_rate={projector: 2.5e-05, llm: 0.0001}"]


def test_equal_drifts_follow_from_the_lowered_rates(tmp_path):
    """Drift is quadratic in the rate: kappa, scaled by both rates, is 1. With every pair of three modules."""
    logs = {"vision_tower": [math.log(20.0)] * 40, "llm": [math.log(90.0)] * 40}
    lines = log_lines(logs)
    verdict = diagnose(lines)
    assert verdict.lower == pytest.approx({"vision_tower": math.sqrt(20.0), "llm": math.sqrt(90.0)})
    for module, row in logs.items():
        assert math.exp(row[0]) / verdict.lower[module] ** 2 == pytest.approx(1.0)


def test_a_coordinated_run_starts_from_lower_base_rates(tmp_path):
    """Factors 0.4 and 1.6 hold kappa at 9: base rates 3 * 1.6 / 0.4 = 12 times apart."""
    (found,) = remedies(view(tmp_path, log_lines({"llm": [math.log(9.0)] * 800}, moving=True), schedule="commit-clr"))
    assert found.what.startswith("Lower the LLM's learning rate 12x")
    assert found.overrides == ["train.learning_rate={projector: 0.0001, llm: 8.3e-06}"]
    assert found.otherwise == ""


def test_oscillation_lowers_both_rates_or_lengthens_the_window(tmp_path):
    swings = {"llm": around(0.0, 2.0)}
    (found,) = remedies(view(tmp_path, log_lines(swings), "plain"))
    assert found.overrides == ["train.learning_rate={projector: 5.0e-05, llm: 5.0e-05}"]
    assert taken_by_a_recipe(tmp_path, found.overrides).train.learning_rate == {"projector": 5e-5, "llm": 5e-5}
    (found,) = remedies(view(tmp_path, log_lines(swings, moving=True), "moving", schedule="commit"))
    assert found.overrides == ["balance.modules.window=40"]
    assert found.what == "Average kappa over a longer window, 40 measurements instead of 20 to begin with."
    assert found.code == "Coordination(..., window=40)"


def test_balance_and_ignorance_ask_for_nothing(tmp_path):
    assert remedies(view(tmp_path, log_lines({"llm": around(0.1, 0.3)}), "a")) == []
    assert remedies(view(tmp_path, [{"step": 1, "loss": 2.0}], "b")) == []


def test_every_module_that_learns_is_named_and_no_other(tmp_path):
    """A recipe's map of rates must hold them all, one at rate 0 too."""
    rows = [{"module": "projector", "trainable": 9, "learning_rate": 0.0}, {"module": "llm", "trainable": 9,
            "learning_rate": 1e-4}, {"module": "vision_tower", "trainable": 0, "learning_rate": 0.0}]  # fmt: skip
    run = view(tmp_path, log_lines({"llm": [math.log(9.0)] * 40}), modules=rows)
    assert base_rates(run) == {"projector": 0.0, "llm": 1e-4}


def test_base_rates_from_a_log_alone(tmp_path):
    """The rate behind the factors, at its highest: past warm-up and before the decay. A waiting module has factor 0."""
    log = log_lines({"llm": around(0, 0.1, 10)})
    for line in log[:3]:
        for module, factor in (("llm", 0.5), ("projector", 0.0)):
            line |= {f"lr/{module}": 1e-5 * factor, f"lr_factor/{module}": factor}
    log[4] |= {"lr/llm": 8e-5, "lr_factor/llm": 0.25}
    run = RunDirectory(write_run(tmp_path / "run", log).path)
    (run.path / "modules.json").unlink()
    found = base_rates(view_one(run, "run"))
    assert found["llm"] == pytest.approx(3.2e-4)
    assert 0.5e-4 < found["projector"] <= BASE_RATE


def test_a_starving_task_gets_a_weight_with_which_it_counts_like_the_others(tmp_path):
    run = view(tmp_path, with_tasks(log_lines({"llm": around(0.1, 0.3)}), TASKS))
    (found,) = remedies(run)
    assert found.what == "Give chat 5 times its weight."
    assert found.overrides == ["balance.tasks.weighter=fixed", "balance.tasks.weights={chat: 5.0}"]
    assert "equipoise balance" in found.otherwise
    weighting = taken_by_a_recipe(tmp_path, found.overrides).balance.tasks
    assert (weighting.weighter, weighting.weights) == ("fixed", {"chat": 5.0})
    assert 20 * 5.0 == (90 + 110) / 2


def test_weights_that_are_there_stay_and_names_of_any_kind_are_yaml(tmp_path):
    tasks = {"a.b-c": (2.0, 0.4, 100, 1.5), "no": (3.0, 2.95, 80, 0.5)}
    (found,) = remedies(view(tmp_path, with_tasks(log_lines({"llm": around(0.1, 0.3)}), tasks)))
    weighting = taken_by_a_recipe(tmp_path, found.overrides).balance.tasks
    assert weighting.weights == {"a.b-c": 1.5, "no": 1.9}  # 150 weighted tokens over 80


def test_a_task_with_a_large_share_gets_no_weight_but_a_look(tmp_path):
    """As its sentence says."""
    run = view(tmp_path, with_tasks(log_lines({"llm": around(0.1, 0.3)}), {**TASKS, "chat": (2.5, 2.45, 150, 1.0)}))
    (found,) = remedies(run)
    assert found.what == "Look at the samples and answers of chat: of tokens there are enough."
    assert (found.overrides, found.code, found.otherwise) == ([], "", "")
    (sentence,) = starvation(run.columns).sentences
    assert "look at its samples and answers" in sentence


def test_of_two_that_starve_one_gets_weight_and_one_a_look(tmp_path):
    tasks = {**TASKS, "chat": (2.5, 2.45, 150, 1.0), "few": (2.5, 2.45, 5, 1.0), "more": (2.0, 0.4, 100, 1.0)}
    tasks |= dict.fromkeys(("d", "e"), (2.0, 0.4, 100, 1.0))
    weight, look = remedies(view(tmp_path, with_tasks(log_lines({"llm": around(0.1, 0.3)}), tasks)))
    assert weight.overrides[1] == "balance.tasks.weights={few: 10.0}"
    assert look.what.startswith("Look at the samples and answers of chat")


def test_a_rate_that_is_not_lowered_is_not_rounded(tmp_path):
    rows = [{"module": module, "trainable": 9, "learning_rate": 1.2345e-4} for module in ("projector", "llm")]
    (found,) = remedies(view(tmp_path, log_lines({"llm": [math.log(9.0)] * 40}), modules=rows))
    assert found.overrides == ["train.learning_rate={projector: 0.00012345, llm: 4.1e-05}"]


def test_a_recipe_that_is_none_still_has_a_remedy(tmp_path):
    run = write_run(tmp_path / "run", log_lines({"llm": around(0.0, 2.0)}, moving=True), schedule="commit")
    run.recipe_file.write_text("when: 2024-02-30\nbalance: {modules: {window: 30}}\n", encoding="utf-8")
    (found,) = remedies(view_one(run, "run"))
    assert found.overrides == ["balance.modules.window=40"]


def test_no_weight_is_raised_without_bound_nor_by_less_than_double(tmp_path):
    lines = with_tasks(log_lines({"llm": around(0.1, 0.3)}), {**TASKS, "chat": (2.5, 2.45, 1, 1.0)})
    assert even_weights(view(tmp_path, lines, "few"), ["chat"]) == {"chat": 10.0}
    lines = with_tasks(log_lines({"llm": around(0.1, 0.3)}), {**TASKS, "chat": (2.5, 2.45, 400, 1.0)})
    assert even_weights(view(tmp_path, lines, "many"), ["chat"]) == {"chat": 2.0}


def test_no_tokens_no_number(tmp_path):
    lines = with_tasks(log_lines({"llm": around(0.1, 0.3)}), TASKS)
    lines = [{key: value for key, value in line.items() if not key.startswith("task_tokens/")} for line in lines]
    (found,) = remedies(view(tmp_path, lines))
    assert (found.what, found.overrides, found.code) == ("Give chat more weight.", [], "")
