"""The verdict: its names at and around each threshold, and what it passes over."""

import math

import pytest
from _synthetic_runs import around, log_lines

from equipoise.report.verdict import BALANCED, ENOUGH, FAR, OSCILLATING, UNKNOWN, diagnose, log_drifts, rounded


def lines(*kappas: float | None) -> list[dict[str, float | None]]:
    return [{"step": step, "kappa": kappa} for step, kappa in enumerate(kappas, start=1)]


@pytest.mark.parametrize(
    ("kappas", "name"),
    [
        ([1.0] * 20, BALANCED),
        ([3.0] * 20, BALANCED),
        ([3.01] * 20, "biased toward the LLM"),
        ([1 / 3.01] * 20, "biased toward the encoder"),
        ([0.34] * 20, BALANCED),
        ([2.9, 1 / 2.9] * 20, BALANCED),
        ([3.1, 1 / 3.1] * 20, OSCILLATING),
        ([30.0] * 20 + [2.0] * 60, BALANCED),  # the burn-in is a quarter
        ([9.0] * 25 + [1 / 9] * 75, "biased toward the encoder"),
    ],
)
def test_thresholds(kappas, name):
    assert diagnose(lines(*kappas)).name == name


def test_oscillation_needs_a_quarter_of_crossings():
    """Runs of three cross 1 in a third of the steps, runs of five in a fifth, with the same spread."""
    for length, name in ((3, OSCILLATING), (5, BALANCED)):
        verdict = diagnose(lines(*[1.0] * 40, *([5.0] * length + [0.2] * length) * (60 // length)))
        assert verdict.std_log_kappa is not None
        assert verdict.std_log_kappa > FAR
        assert verdict.name == name


@pytest.mark.parametrize("count", [20, 21, 22, 23])
def test_alternation_is_oscillation_whatever_side_has_one_more(count):
    """The median alone would be one of the two sides."""
    assert diagnose(lines(*[(0.1, 10.0)[i % 2] for i in range(count)])).name == OSCILLATING


def test_a_slow_walk_is_not_called_steady():
    kappas = [math.exp(3 - 6 * i / 100) for i in range(100)]
    verdict = diagnose(lines(*[1.0] * 34, *kappas))
    assert verdict.name == BALANCED
    assert "wanders" in verdict.advice


def test_too_few_measurements():
    """A verdict rests on what is left after the burn-in."""
    assert diagnose([]).name == UNKNOWN
    assert diagnose([]).kappa is None
    assert diagnose([]).advice == "No step was logged yet."
    assert diagnose([{"step": 1, "loss": 2.0}]).advice.startswith("No kappa was logged")
    assert diagnose(lines(*[9.0] * (ENOUGH - 1))).name == UNKNOWN
    short = diagnose(lines(*[9.0] * (ENOUGH + 1)))
    assert (short.name, short.measurements) == ("biased toward the LLM", ENOUGH)


def test_numbers_and_advice():
    verdict = diagnose(log_lines({"llm": [math.log(9.0)] * 40}))
    assert verdict.pair == ("llm", "projector")
    assert verdict.module == "llm"
    assert verdict.kappa == pytest.approx(9.0)
    assert verdict.std_log_kappa == pytest.approx(0.0, abs=1e-9)
    assert verdict.measurements == 30
    assert verdict.advice == (
        "kappa is about 9: the LLM outruns the projector; lower the LLM's learning rate about 3x, "
        "or use schedule commit-clr."
    )
    other = diagnose(log_lines({"llm": [-math.log(16.0)] * 40}))
    assert (other.name, other.module) == ("biased toward the projector", "projector")
    assert "lower the projector's learning rate about 4x" in other.advice


def test_advice_to_a_coordinated_run_counts_what_the_schedule_already_does():
    """Factors 0.4 and 1.6 hold kappa at 9: equal drifts ask for base rates 3 * 1.6 / 0.4 apart."""
    log = log_lines({"llm": [math.log(9.0)] * 800}, moving=True)
    verdict = diagnose(log)
    assert verdict.name == "biased toward the LLM"
    assert "about 12x lower" in verdict.advice
    assert "use schedule commit" not in verdict.advice


def test_synthetic_runs():
    assert diagnose(log_lines({"llm": around(0.2, 0.5)})).name == BALANCED
    assert diagnose(log_lines({"llm": around(0.0, 2.0)})).name == OSCILLATING
    assert diagnose(log_lines({"llm": around(2.5, 0.5)}, every=5)).name == "biased toward the LLM"


def test_three_modules_name_the_worst_pair():
    """No module is far from the reference, yet two of them are far from each other."""
    verdict = diagnose(log_lines({"vision_tower": around(-0.9, 0.1), "llm": around(0.9, 0.1)}))
    assert verdict.name == "biased toward the LLM"
    assert verdict.pair == ("llm", "vision_tower")
    assert verdict.kappa == pytest.approx(math.exp(1.8), rel=0.1)
    verdict = diagnose(log_lines({"vision_tower": around(2.0, 0.1), "llm": around(0.0, 2.0)}))
    assert verdict.module == "vision_tower"  # bias outweighs the LLM's oscillation
    verdict = diagnose(log_lines({"vision_tower": around(0.0, 0.1), "llm": around(0.0, 2.0)}))
    assert verdict.name == OSCILLATING


def test_reference_may_be_the_llm():
    log = log_lines({"projector": [math.log(10.0)] * 20}, reference="llm")
    verdict = diagnose(log)
    assert verdict.pair == ("llm", "projector")
    assert verdict.kappa == pytest.approx(0.1)
    assert verdict.name == "biased toward the projector"


def test_numbers_at_the_end_of_what_a_float_holds():
    """Logged by no run, yet a log is a file: the verdict stays one, in numbers that JSON has."""
    for moving in (False, True):
        log = log_lines({"vision_tower": [0.0] * 40, "llm": [0.0] * 40}, moving=moving)
        for place, line in enumerate(log):
            line |= {"kappa": 10**400 if place % 2 else 1e200, "kappa/vision_tower": 1e-200}
            line |= {"lr_factor/llm": 10**400, "lr_factor/vision_tower": 1e-300 * (1 + place)}
        verdict = diagnose(log)
        assert verdict.name == "biased toward the LLM"
        assert verdict.kappa == pytest.approx(math.exp(700))
        assert all(map(math.isfinite, verdict.lower.values()))
    swings = [{"kappa": 1e300 if place % 2 else 1e-300} for place in range(40)]
    assert diagnose(swings).name == OSCILLATING


def test_unusable_lines_are_passed_over():
    log = [
        {"step": 1},
        {"step": 2, "kappa": None},
        {"step": 3, "kappa": 0.0},
        {"step": 4, "kappa": float("inf")},
        {"step": 5, "kappa": "9"},
        {"step": 6, "drift/projector": 0.0, "drift/llm": 0.1, "measurements_skipped": 1},
        {"step": 7, "validation_loss": 0.4},
        *lines(*[9.0] * 8),
    ]
    modules, rows = log_drifts(log)
    assert modules == ["projector", "llm"]
    assert len(rows) == 8
    assert diagnose(log).name == "biased toward the LLM"


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.04, "9"), (0.1111, "0.11"), (1.0, "1"), (14.7, "15"), (123456.0, "123,456"), (2e-5, "0.00002")],
)
def test_rounded(value, text):
    assert rounded(value) == text
