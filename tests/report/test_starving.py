"""Which tasks starve, from a log whose answer is known."""

import math

import pytest

from equipoise.report.starving import ENOUGH, starvation, unlearnt

STEPS = 80


def columns(falls, tokens=None, steps=STEPS, start=2.0):
    """Losses that fall evenly, in the logarithm, by `falls`; and tokens a step."""
    found = {}
    for task, fall in falls.items():
        numbers = [float(n) for n in range(steps)]
        found[f"task_loss/{task}"] = numbers, [start * math.exp(-fall * n / (steps - 1)) for n in range(steps)]
        if tokens:
            found[f"task_tokens/{task}"] = numbers, [float(tokens[task])] * steps
            found[f"task_weight/{task}"] = numbers, [1.0] * steps
    return found


def test_a_task_whose_loss_stands_still_among_few_tokens_starves():
    found = starvation(columns({"a": 1.5, "b": 1.2, "c": 0.1}, {"a": 100, "b": 90, "c": 2}))
    assert found.tasks == ["c"]
    (sentence,) = found.sentences
    assert sentence.startswith("c starves: its loss fell by 7 % while the others' median fell by 64 %")
    assert "1 % of the weighted tokens; give it more weight" in sentence


def test_weights_count_as_voice():
    log = columns({"a": 1.5, "b": 1.2, "c": 0.1}, {"a": 100, "b": 100, "c": 10})
    log["task_weight/c"] = log["task_weight/c"][0], [10.0] * STEPS
    (sentence,) = starvation(log).sentences
    assert "although it has 33 % of the weighted tokens; look at its samples" in sentence


def test_a_loss_that_rose():
    (sentence,) = starvation(columns({"a": 1.5, "b": -0.4})).sentences
    assert "b starves: its loss rose by 35 %" in sentence
    assert "tokens" not in sentence


def test_half_an_even_share_is_ample():
    """Of two tasks: a quarter of the tokens."""
    for tokens, ample in ((100, ["b"]), (99, [])):
        found = starvation(columns({"a": 1.5, "b": 0.1}, {"a": 300, "b": tokens}))
        assert (found.tasks, found.ample) == (["b"], ample)
        assert ("look at its samples" in found.sentences[0]) == bool(ample)
    assert starvation(columns({"a": 1.5, "b": 0.1})).ample == []


def test_a_loss_that_stands_still():
    (sentence,) = starvation(columns({"a": 1.5, "b": 0.0})).sentences
    assert "its loss fell by 0 %" in sentence


@pytest.mark.parametrize(
    ("falls", "start", "said"),
    [
        ({"a": 1.5, "b": 1.2, "c": 0.6}, 2.0, "the least has come of c, whose loss fell by 37 %"),
        ({"a": 0.1, "b": 0.1, "c": -0.5}, 2.0, "the least has come of c"),  # nothing learns: the run's fault, not c's
        ({"a": 1.5, "b": 1.2, "c": 0.1}, 0.05, "every task's loss is below 0.05"),
    ],
)
def test_none_starves(falls, start, said):
    found = starvation(columns(falls, start=start))
    assert found.tasks == ()
    assert found.known
    assert said in found.sentences[0]


def test_what_is_learnt_does_not_starve():
    log = columns({"a": 1.5, "b": 1.2})
    log["task_loss/done"] = log["task_loss/a"][0], [0.01] * STEPS
    assert starvation(log).tasks == ()


def test_the_worst_comes_first():
    found = starvation(columns({"a": 1.5, "b": 1.5, "c": 1.4, "d": 0.2, "e": 0.0}))
    assert found.tasks == ["e", "d"]


def test_too_little_to_tell():
    assert starvation({}) is None
    assert starvation(columns({"a": 1.0})) is None
    short = starvation(columns({"a": 1.0, "b": 0.0}, steps=ENOUGH - 1))
    assert not short.known
    assert "Too few steps" in short.sentences[0]
    assert starvation(columns({"a": 1.0, "b": 0.0}, steps=ENOUGH)).tasks == ["b"]


def test_a_loss_of_nothing():
    log = columns({"a": 1.0, "b": 0.5})
    log["task_loss/b"] = log["task_loss/b"][0], [0.0] * STEPS
    assert starvation(log).tasks == ()


def test_scores_that_needed_no_learning():
    scores = {
        "a": {"value": 0.3, "majority": 0.3, "shuffled_inputs": 0.2},
        "b": {"value": 0.4, "majority": 0.3, "shuffled_inputs": 0.45},
        "c": {"value": 0.5, "majority": 0.3, "shuffled_inputs": 0.4},
        "d": {"value": None, "majority": 0.3},
        "e": {"value": "x"},
    }
    first, second = unlearnt(scores)
    assert first == "a scores 0.300, no better than always giving the commonest answer (0.300)."
    assert second.startswith("b scores 0.400, no better than the same model on other")
