"""Multiple choice: the letter in any of its forms, or the text; and which of them a prediction is read as."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import DataError
from equipoise.metrics.multiple_choice import score

LEAD_INS = [
    "",
    "answer: ",
    "Answer:",
    "The answer is ",
    "the correct answer is: ",
    "Option ",
    "choice ",
    "The right choice is ",
]


def is_right(prediction: str, text: str = "red", letter: str = "B") -> bool:
    return score([prediction], [[text, letter]]).value == 1


@pytest.mark.parametrize(
    "prediction",
    ["B", "b", " B\n", "B.", "b.", "B)", "B:", "(B)", "(b).", "B: red", "B. red", "B) Red.", "(B) red", "(B): red",
     "B. a red one",
     "The answer is B.", "the answer is (b).", "The answer is: B", "Answer: B", "answer:\nB",
     "The correct answer is B. red",
     "Option B", "option (B) red", "The answer is option B.", "the right choice is B"],
)  # fmt: skip
def test_the_letter_in_many_forms(prediction):
    assert is_right(prediction)
    assert not is_right(prediction.replace("B", "C").replace("b", "c").replace("red", "blue").replace("Red", "blue"))


@pytest.mark.parametrize("prediction", ["red", "Red", " red.", "RED .", "Red\n"])
def test_the_text_as_exact_match_has_it(prediction):
    assert is_right(prediction)


@pytest.mark.parametrize(
    "prediction",
    [
        "blue",
        "reddish",
        "the red",
        "A",
        "(C)",
        "AB",
        "B red",
        "Both",
        "B.red",
        "A or B",
        "[B]",
        "answerB",
        "options",
        "not B",
        "",
        "red!",
    ],
)
def test_all_else_is_wrong(prediction):
    assert not is_right(prediction)


def test_a_wrong_letter_with_the_right_text_is_wrong_and_the_reverse_right():
    assert not is_right("A: red")
    assert is_right("B: blue")


def test_a_letter_alone_is_a_letter_even_where_the_texts_are_letters():
    # The choices are A: "B", B: "A"; the second is right.
    assert is_right("B", text="A", letter="B")
    assert not is_right("A", text="A", letter="B")
    assert not is_right("(a). \n", text="A", letter="B")
    assert not is_right("A \n", text="A", letter="B")
    assert not is_right("The answer is A", text="A", letter="B")


@pytest.mark.parametrize("text", ["C. elegans", "a) both", "(d) none of them", "The answer is C. elegans"])
def test_a_longer_text_that_begins_like_another_letter_is_still_the_text(text):
    assert is_right(text, text=text, letter="B")
    assert not is_right(text + " too", text=text, letter="B")


def test_texts_with_articles_are_not_letters():
    assert not is_right("a dog", text="a cat", letter="A")
    assert not is_right("The answer is a dog", text="a cat", letter="A")


def test_each_sample_has_its_own_choice():
    assert score(["A", "red", "B"], [["red", "A"], ["red", "c"], ["red", "A"]]).samples == (1, 1, 0)


@pytest.mark.parametrize("references", [["red"], ["red", "B", "blue"], ["B", "red"], ["red", ""]])
def test_references_that_are_not_a_text_and_a_letter_are_refused(references):
    with pytest.raises(DataError, match=r"^sample 1: multiple_choice takes .* text and its letter; found \["):
        score(["A", "A"], [["red", "B"], references])


@given(
    lead_in=st.sampled_from(LEAD_INS),
    named=st.sampled_from("ABCDE"),
    letter=st.sampled_from("ABCDE"),
    form=st.sampled_from(["{}", "{}.", "({})", "{})", "{}: red", "({}) red"]),
)
def test_a_named_letter_is_right_when_it_is_the_letter(lead_in, named, letter, form):
    assert is_right(lead_in + form.format(named), "green", letter) is (named == letter)
