"""What every metric promises, whatever it measures; a new one in METRICS inherits these tests."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.metrics import METRICS
from equipoise.metrics.score import Score

BOXES = ("[0.10, 0.20, 0.55, 0.90]", "the dog is at (0.12, 0.2, 0.5, 0.95)", "0 0 1 1", "[0.5, 0.5, 0.4, 0.6]", "[]")
ANSWERS = ("Two dogs.", "2 dogs", "a dog on the grass", "5%", "1,000", "", "东京 é", "the dog's paws aren't wet!")


def references_of(name: str) -> st.SearchStrategy[list[str]]:
    """References in the form that a metric reads."""
    if name == "multiple_choice":
        return st.tuples(st.sampled_from(ANSWERS) | st.text(), st.sampled_from("ABCDe")).map(list) | st.just([])
    written = BOXES if name in ("iou", "box_accuracy") else ANSWERS
    return st.lists(st.sampled_from(written) | st.text(), max_size=10)


def predictions_of(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([*BOXES, *ANSWERS, "B", "(c) 2 dogs", "The answer is A."]) | st.text()


def samples_of(name: str) -> st.SearchStrategy[list[tuple[str, list[str]]]]:
    return st.lists(st.tuples(predictions_of(name), references_of(name)), max_size=8)


def scored(name: str, samples: list[tuple[str, list[str]]]) -> Score:
    return METRICS[name]([prediction for prediction, _ in samples], [allowed for _, allowed in samples])


each = pytest.mark.parametrize("name", sorted(METRICS))


def test_the_names_are_those_that_recipes_use():
    assert set(METRICS) == {
        "exact_match", "vqa_accuracy", "aokvqa_direct", "multiple_choice", "rouge_l", "cider", "cider_ptb", "iou",
        "box_accuracy", "relaxed_accuracy",
    }  # fmt: skip


@each
@given(data=st.data())
def test_a_value_a_sample_in_range_and_their_mean(name, data):
    samples = data.draw(samples_of(name))
    result = scored(name, samples)
    highest = 10 + 1e-9 if name.startswith("cider") else 1
    assert len(result.samples) == len(samples)
    assert all(type(value) is float and 0 <= value <= highest for value in result.samples)
    assert result.value == pytest.approx(sum(result.samples) / len(samples) if samples else 0.0)
    assert all(0 <= value <= 1 for value in result.also.values())


@each
@given(data=st.data())
def test_the_order_of_samples_is_only_that_of_values(name, data):
    samples = data.draw(samples_of(name))
    order = data.draw(st.permutations(range(len(samples))))
    straight, shuffled = scored(name, samples), scored(name, [samples[index] for index in order])
    assert shuffled.samples == pytest.approx([straight.samples[index] for index in order], abs=1e-12)
    assert dict(shuffled.also) == pytest.approx(dict(straight.also))


@each
@given(data=st.data())
def test_the_order_of_references_does_not_count(name, data):
    prediction, allowed = data.draw(predictions_of(name)), data.draw(references_of(name))
    if name != "multiple_choice":  # its second reference is the letter
        others = [("a dog", ["a dog"])]
        straight, turned = (scored(name, [(prediction, each), *others]) for each in (allowed, allowed[::-1]))
        assert turned.samples == pytest.approx(straight.samples, abs=1e-12)


@each
@given(data=st.data())
def test_the_same_again_is_the_same(name, data):
    samples = data.draw(samples_of(name))
    assert scored(name, samples) == scored(name, samples)


@each
def test_no_samples_score_zero(name):
    assert scored(name, []) == Score(0.0, (), scored(name, []).also)


@each
@pytest.mark.parametrize("prediction", ["", " \n", "."])
def test_an_empty_prediction_is_wrong_and_no_error(name, prediction):
    right = {"multiple_choice": ["two dogs", "A"], "iou": [BOXES[0]], "box_accuracy": [BOXES[0]]}
    assert scored(name, [(prediction, right.get(name, ["two dogs", "2 dogs"]))]).samples == (0.0,)


@each
def test_no_references_are_no_match_and_no_error(name):
    assert scored(name, [("a dog", []), (BOXES[0], []), ("B", []), ("", [])]).samples == (0.0,) * 4


@each
@pytest.mark.parametrize(("predictions", "references"), [(["a", "b"], [["a", "B"]]), (["a"], [["a", "B"], ["b", "A"]])])
def test_predictions_and_references_must_pair_up(name, predictions, references):
    with pytest.raises(ValueError, match="argument"):
        METRICS[name](predictions, references)


@each
def test_a_perfect_prediction_gets_the_maximum(name):
    if name in ("iou", "box_accuracy"):
        samples = [(box, [box]) for box in BOXES[:3]]
    elif name == "multiple_choice":
        samples = [("two dogs", ["two dogs", "A"]), ("C", ["B", "C"])]
    elif name.startswith("cider"):  # which needs a reference of four words that another sample does not have
        samples = [("the dog runs away", ["the dog runs away"]), ("it is a very big cat", ["it is a very big cat"])]
    else:
        samples = [(answer, [answer] * count) for answer in ANSWERS for count in (1, 2, 3, 4, 10)]
    result = scored(name, samples)
    assert result.samples == pytest.approx([10.0 if name.startswith("cider") else 1.0] * len(samples))


LONG = {
    "one word": "a" * 1_000_000,
    "many words": "dog bites man " * 70_000,
    "digits": "1" * 1_000_000,
    "brackets": "[(0.1, 0.2)] [" * 70_000,
    "marks": "-.'?," * 200_000,
    "contractions": "n't've'd" * 120_000,
    "letters and periods": "a." * 500_000,
    "lead-ins": "the answer is " * 35_000 + " " * 500_000 + "x y",
    "other scripts": "東京タワー🗼é\u0301" * 100_000,
}


@each
@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_a_megabyte_of_anything_does_not_hang(name, text):
    references = (
        ["a dog bites a man", "B"] if name == "multiple_choice" else ["a dog bites a man", "[0.1, 0.2, 0.3, 0.4]"]
    )
    started = time.process_time()
    scored(name, [(text, references), ("a dog", references)])
    assert time.process_time() - started < 30


def test_metrics_need_no_torch():
    # The command line's name keeps equipoise/__init__.py from importing models.
    code = "import sys; sys.argv[0] = 'equipoise'; import equipoise.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
