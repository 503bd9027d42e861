"""FastChat's cleaning: each rule on conversations written by hand."""

from __future__ import annotations

import sys

import pytest

from equipoise.data.clean import Invalid, clean, html_to_markdown
from equipoise.data.sample import Turn, exchange
from equipoise.errors import DataError

ASKED = "What is a river?"
ANSWERED = "Water that flows."


def said(*texts: str, first: str = "human") -> list[tuple[str, str]]:
    speakers = ("human", "gpt") if first == "human" else ("gpt", "human")
    return [(speakers[number % 2], text) for number, text in enumerate(texts)]


def reason(messages: list[tuple[str, str]]) -> str:
    with pytest.raises(Invalid) as caught:
        clean(messages)
    return str(caught.value)


def test_a_sound_conversation_is_stripped_and_kept():
    messages = said(f" {ASKED}\n", ANSWERED, "And a lake?", "Water that\n\nstands.")
    assert clean(messages) == (*exchange(ASKED, ANSWERED), *exchange("And a lake?", "Water that\n\nstands."))


def test_a_first_turn_that_is_not_the_humans_is_dropped():
    assert clean(said("Hello.", ASKED, ANSWERED, first="gpt")) == exchange(ASKED, ANSWERED)
    assert clean([("system", "Be brief."), *said(ASKED, ANSWERED)]) == exchange(ASKED, ANSWERED)


def test_but_one_alone():
    two = [("system", "Be brief."), ("gpt", "Hello."), *said(ASKED, ANSWERED)]
    assert reason(two) == "roles do not alternate"


def test_a_question_that_nobody_answers_is_dropped():
    assert clean(said(ASKED, ANSWERED, "Thanks, that is all.")) == exchange(ASKED, ANSWERED)
    assert clean(said(ASKED, ANSWERED, "Thanks, ChatGPT.")) == exchange(ASKED, ANSWERED)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        said(ASKED),
        said(ANSWERED, first="gpt"),
        said(ANSWERED, ASKED, first="gpt"),
        said("Hello?", "Hi."),
        [("system", "Be brief."), ("gpt", ANSWERED)],
    ],
    ids=["nothing", "a question alone", "an answer alone", "an answer first", "few characters", "no question"],
)
def test_too_short(messages):
    assert reason(messages) == "too short"


def test_sixteen_characters_are_enough():
    assert clean(said("12345678", "12345678")) == exchange("12345678", "12345678")
    assert reason(said("12345678", "1234567")) == "too short"


@pytest.mark.parametrize(
    "messages",
    [
        [("human", ASKED), ("human", ASKED), ("gpt", ANSWERED)],
        [("human", ASKED), ("gpt", ANSWERED), ("gpt", ANSWERED)],
        [("human", ASKED), ("bing", ANSWERED)],
        [("human", ASKED), ("system", "x"), ("gpt", ANSWERED)],
    ],
)
def test_roles_that_do_not_alternate(messages):
    assert reason(messages) == "roles do not alternate"


@pytest.mark.parametrize("text", ["Made by OpenAI.", "Is this ChatGPT?", "openai's chatgpt"])
def test_blocked_words_by_either_side(text):
    assert reason(said(text, ANSWERED)) == "blocked words"
    assert reason(said(ASKED, ANSWERED, ASKED, text)) == "blocked words"


@pytest.mark.parametrize("mark", ["", "!"])
def test_a_notice_of_too_many_requests(mark):
    notice = f"{mark}Too many requests in 1 hour. Try again later. Really."
    assert reason(said(ASKED, notice)) == "blocked words"
    assert clean(said(notice, ANSWERED)) == exchange(notice, ANSWERED)
    assert clean(said(ASKED, f"It says: {notice}")) == exchange(ASKED, f"It says: {notice}")


@pytest.mark.parametrize("empty", ["", " \n", "\u200bhidden"])
def test_it_ends_before_an_empty_turn(empty):
    rest = ("Go on.", "And on.")
    assert clean(said(ASKED, ANSWERED, "More?", empty, *rest)) == exchange(ASKED, ANSWERED)
    assert clean(said(ASKED, ANSWERED, empty, "Nothing.", *rest)) == exchange(ASKED, ANSWERED)
    assert reason(said(ASKED, empty, *rest)) == "too short"


def test_what_comes_after_an_empty_turn_is_not_looked_at():
    assert clean(said(ASKED, ANSWERED, "", "OpenAI", "x", "y")) == exchange(ASKED, ANSWERED)


def test_a_list_that_does_not_count():
    assert reason(said(ASKED, "These:\n1. one\n1. another one")) == "a list that counts 1., 1."
    for fine in ("These:\n1. one\n2. two\n1. again", "1. one\n1. first line needs a break before", "a\n1. b\n2. c"):
        assert clean(said(ASKED, fine)) == exchange(ASKED, fine)


CODE = (
    '<pre><div class="bg-black"><div class="flex">python<button>Copy code</button></div>'
    '<div class="p-4"><code><span class="x">my_name</span> = 1\n</code></div></div></pre>'
)


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("plain text", "plain text"),
        ("<p>One <strong>bold</strong> word</p><p>and another line</p>", "One **bold** word\n\nand another line"),
        ("<ul><li>apple</li><li>oak</li></ul>", "* apple\n* oak"),
        (f'<div class="markdown prose"><p>Run:</p>{CODE}</div>', "Run:\n\n```python\nmy_name = 1\n```"),
        ('<div class="flex">2 / 3</div><div><p>Once more</p></div>', "Once more"),
        ("<p>take 1 / 2 of it</p>", "take 1 / 2 of it"),
        ("<p>text</p>Copy12 chars / 3 words", "text"),
        ("<p>text</p>```pythonCopy code```", "text"),
        ("<pre>one\n\n\ntwo</pre>", "```\none\ntwo\n```"),
    ],
)
def test_html_becomes_markdown(html, markdown):
    assert html_to_markdown(html) == markdown


def test_messages_in_html_are_cleaned_as_markdown():
    notice = "<p>Too many requests in 1 hour. Try again later.</p>"
    assert clean(said(ASKED, f"<p>{ANSWERED}</p>"), html_to_markdown) == (
        Turn("user", ASKED),
        Turn("assistant", ANSWERED),
    )
    with pytest.raises(Invalid, match="blocked words"):
        clean(said(ASKED, notice), html_to_markdown)
    assert clean(said(ASKED, ANSWERED, ASKED, "<p></p>"), html_to_markdown) == exchange(ASKED, ANSWERED)


def test_html_that_no_parser_takes_makes_it_invalid(monkeypatch):
    def refuse(html: str) -> str:
        raise AssertionError("unknown status keyword")

    monkeypatch.setattr("markdownify.markdownify", refuse)
    with pytest.raises(Invalid, match=r"^HTML that cannot be parsed$"):
        clean(said(ASKED, ANSWERED), html_to_markdown)


def test_html_without_markdownify(monkeypatch):
    monkeypatch.setitem(sys.modules, "markdownify", None)
    with pytest.raises(DataError, match=r"^messages in HTML need the markdownify package: pip install markdownify$"):
        html_to_markdown("<p>a</p>")
