"""What a report, `diagnose` and a follower say of a run whose numbers went bad."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import pytest
from _html_page import Page
from _synthetic_runs import around, log_lines, write_run

from equipoise.report import build_report
from equipoise.report.diagnosis import diagnose_folder
from equipoise.report.mishaps import Mishaps
from equipoise.report.view import view_one
from equipoise.watching.live import Live

WHY = "the gradients of llm are not finite"
Lines = list[dict[str, Any]]


def said(lines: Lines, modules: tuple[str, ...] = ("projector", "llm")) -> list[str]:
    seen = Mishaps()
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        seen.see(line)
        for key, value in line.items():
            if isinstance(value, float):
                columns.setdefault(key, ([], []))
                columns[key][0].append(line["step"])
                columns[key][1].append(value)
    return seen.sentences(columns, modules)


def plain(count: int = 60) -> Lines:
    noise = random.Random(0)
    return [{"step": step, "loss": 2.0 + noise.gauss(0, 0.2)} for step in range(1, count + 1)]


def test_a_run_without_mishaps_has_none():
    assert said(plain()) == []
    assert said(log_lines({"llm": around(0, 0.4)})) == []
    assert said([]) == []


def test_steps_that_were_not_made_are_counted_by_reason():
    lines = plain()
    for place, why in ((11, WHY), (20, "no token was supervised"), (40, WHY)):
        lines[place] |= {"steps_skipped": 1, "skipped_because": why}
    lines[11]["loss"] = lines[40]["loss"] = None
    assert said(lines) == [
        f"3 of 60 steps were not made: {WHY} (2 times, first at step 12); no token was supervised (at step 21).",
        "The loss was not finite (2 times, first at step 12).",
    ]


def test_a_log_that_ends_with_them_says_so():
    lines = plain(30)
    for line in lines[-10:]:
        line |= {"loss": None, "skipped_because": WHY}
    assert said(lines)[0] == (
        f"10 of 30 steps were not made: {WHY} (10 times, first at step 21). The log ends with 10 of them in a row."
    )


def test_a_validation_loss_that_is_not_finite():
    lines = [*plain(20), {"step": 20, "validation_loss": None, "not_finite": {"validation_loss": "nan"}}]
    assert said(lines) == ["The validation loss was not finite (at step 20)."]


@pytest.mark.parametrize("height", [8.0, 60.0, 6e5])
def test_a_loss_that_leaps_is_named(height):
    lines = plain()
    lines[45]["loss"] = height
    [sentence] = said(lines)
    shown = re.escape(f"{height:.3g}")
    assert re.fullmatch(rf"The loss spiked at step 46: {shown}, after 2\.\d+ at most in the steps before\.", sentence)
    lines[50]["loss"] = 1e7
    assert said(lines)[0].startswith("The loss spiked at step 51: 1e+07, after ")
    assert said(lines)[0].endswith(" (the highest of 2 such steps).")


def test_the_beginning_is_no_spike():
    lines = plain()
    lines[19]["loss"] = 100.0
    assert said(lines) == []


def test_noise_unlike_batches_and_a_rise_are_no_spikes():
    noise = random.Random(1)
    unlike = [{"step": s, "loss": noise.choice([0.05, 1.2]) * math.exp(noise.gauss(0, 0.3))} for s in range(1, 3000)]
    heavy = [{"step": s, "loss": 2 + abs(noise.gauss(0, 0.4))} for s in range(1, 20_000)]
    rising = [{"step": s, "loss": 1.02**s} for s in range(1, 400)]
    assert said(unlike) == said(heavy) == said(rising) == []


def test_rates_of_0_and_measurements_left_out():
    lines = plain(20)
    for place, line in enumerate(lines):
        line |= {"lr/projector": 0.0, "lr/llm": 1e-4, "measurements_skipped": place + 1}
    assert said(lines) == [
        "The learning rate of projector was 0 at every step: there is no balance to measure.",
        "20 measurements of the balance were left out: a module's drift was 0, rounding, or not finite.",
    ]
    for line in lines:
        line |= {"lr/llm": 0.0}
        del line["measurements_skipped"]
    assert said(lines) == ["Every learning rate was 0 at every step: nothing was learned."]


def test_odd_lines_are_survived():
    odd: Any = [
        {"step": "x", "loss": "y", "skipped_because": 3}, {"step": None, "loss": [], "measurements_skipped": "many"},
        {"step": 1e400, "loss": math.nan, "skipped_because": "z" * 10_000}, {"loss": 10**400, "step": 10**400},
    ]  # fmt: skip
    seen = Mishaps()
    for line in odd:
        seen.see(line)
    for number in range(1000):
        seen.see({"step": number, "loss": 1.0, "skipped_because": f"reason {number}"})
    sentences = seen.sentences({}, [])
    assert all(len(sentence) < 2000 for sentence in sentences)


def bad_run(folder):
    """Ended by ten steps in a row: nothing in its last lines is a number."""
    lines = log_lines({"llm": around(0.2, 0.3)})
    for place, line in enumerate(lines[-10:], 1):
        odd = [key for key in line if key.startswith(("loss", "grad_norm", "kappa", "drift", "theory"))]
        line |= dict.fromkeys(odd)
        line |= {"steps_skipped": place, "skipped_because": WHY, "not_finite": dict.fromkeys(odd, "nan")}
    return write_run(folder / "bad", lines)


def test_the_page_shows_such_a_run(tmp_path):
    run = bad_run(tmp_path)
    page = Page(build_report([run], tmp_path / "out.html").read_text(encoding="utf-8"))
    assert f"not made: {WHY}" in page.text
    assert "The log ends with" in page.text
    other = write_run(tmp_path / "good", log_lines({"llm": around(0, 0.4)}))
    assert "not made" in Page(build_report([other, run], tmp_path / "two.html").read_text(encoding="utf-8")).text


def test_a_log_of_nothing_but_bad_steps_has_a_page_too(tmp_path):
    lines = [
        {"step": s, "loss": None, "grad_norm/llm": None, "grad_norm_relative/llm": 0.0, "lr/llm": 0.0,
         "task_loss/a": None, "task_loss/b": None, "task_tokens/a": 0, "task_tokens/b": 0, "task_weight/a": 1.0,
         "task_weight/b": 1.0, "kappa": None, "skipped_because": WHY}
        for s in range(1, 11)
    ]  # fmt: skip
    run = write_run(tmp_path / "bad", lines)
    assert "10 of 10 steps were not made" in Page(build_report([run], tmp_path / "o.html").read_text("utf-8")).text


def test_diagnose_and_its_follower_say_it(tmp_path):
    run = bad_run(tmp_path)
    found = diagnose_folder(run.path)
    assert any(WHY in line for line in found.lines())
    assert found.sentence().endswith("; some steps were not made")
    assert WHY in json.dumps(found.as_dict(), allow_nan=False)


def test_the_watching_page_says_it(tmp_path):
    run = bad_run(tmp_path)
    assert WHY in Live([run.path]).snapshot().update


def test_the_validation_loss_of_the_finished_model_is_not_replaced_by_an_older_one(tmp_path):
    lines = log_lines({"llm": around(0, 0.4)})
    run = write_run(tmp_path / "a", lines, scores={"split": "test", "validation_loss": None, "tasks": {}})
    view = view_one(run, "a")
    assert view.last("validation_loss") is not None
    assert view.validation_loss is None
