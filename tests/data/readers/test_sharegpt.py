"""ShareGPT: conversations in Markdown and in HTML, as they are and cleaned as FastChat does."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from _published import FIXTURES, flaws, mistake, samples

from equipoise.data.readers.sharegpt import READER
from equipoise.data.sample import Sample, Turn, exchange

ROOT = FIXTURES / "sharegpt"
MARKDOWN = ROOT / "ShareGPT_V4.3_unfiltered_cleaned_split.json"
HTML = ROOT / "sharegpt_20230401_html_unsplit.json"
RIVERS = (
    *exchange("Name three rivers in Europe.", "1. Danube\n2. Rhine\n3. Loire"),
    *exchange("Which is the longest?", "The Danube, of these three."),
)
HAIKU = exchange(
    "Write a haiku about rain.", "Rain taps on the roof\nthe gutter hums a low note\nthe cat does not mind"
)


def sample(id: str, turns: tuple[Turn, ...]) -> Sample:
    return Sample(id, "own", turns, references=(turns[-1].text,))


def conversation(id: Any, *texts: str, **more: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    return {"id": id, "conversations": turns, **more}


GOOD = ("What is a river?", "Water that flows.")


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "sharegpt.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_markdown_is_cleaned():
    assert samples(READER.read, "train", MARKDOWN) == [sample("aAbB123_0", RIVERS), sample("cCdD456_0", HAIKU)]
    assert (READER.splits, READER.response_format) == (("train",), None)


def test_html_becomes_markdown():
    assert samples(READER.read, "train", HTML, html=True) == [
        sample("iIjJ345", exchange("How do I print in Python?", "Call `print`:\n\n```python\nprint(my_name)\n```")),
        sample("kKlL678", exchange("Name a fruit and a tree.", "* apple\n* oak")),
    ]


def test_html_stays_where_a_recipe_does_not_say_that_it_is():
    assert samples(READER.read, "train", HTML)[1].turns[1].text.startswith('<div class="flex">2 / 2</div>')


def test_conversations_as_they_are():
    rows = list(READER.read("own", "train", MARKDOWN, clean=False))
    assert [row for row in rows if isinstance(row, Sample)] == [
        sample("aAbB123_0", RIVERS),
        sample("eEfF789_0", exchange("Who made you?", "I was made by OpenAI.")),
    ]
    ending, empty = flaws(READER.read, "train", MARKDOWN, clean=False)
    assert (ending.id, empty.id) == ("cCdD456_0", "gGhH012_0")
    assert "and end with an answer" in ending.reason
    assert empty.reason == "conversations is []; expected a list of at least one item"


def test_html_as_it_is_but_in_markdown():
    assert [row.turns[1].text for row in samples(READER.read, "train", HTML, clean=False, html=True)] == [
        "Call `print`:\n\n```python\nprint(my_name)\n```",
        "* apple\n* oak",
    ]


def test_what_is_left_out_is_counted_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        samples(READER.read, "train", MARKDOWN)
    assert [record.message for record in caplog.records] == [
        "task own: FastChat's rules leave out 2 of 4 conversations (blocked words: 1, too short: 1)"
    ]


def test_nothing_is_logged_where_nothing_is_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        samples(READER.read, "train", HTML, html=True)
    assert caplog.records == []


def test_duplicates_and_plugins_are_left_out(tmp_path, caplog):
    path = write(
        tmp_path,
        conversation("a", *GOOD),
        conversation("a", "What is a lake?", "Water that stands."),
        conversation("b", *GOOD, "Go on.", "It began the same."),
        conversation("c", "What is a pond?", "Water, and a frog.", plugins=["search"]),
        conversation("d", GOOD[0], "Another answer."),
        conversation("e", "What is a brook?", "A small river.", plugins=None),
        conversation("a", "OpenAI", "OpenAI"),
    )
    with caplog.at_level(logging.WARNING):
        assert [row.id for row in samples(READER.read, "train", path)] == ["a", "d", "e"]
    [record] = caplog.records
    assert "leave out 4 of 7 conversations" in record.message
    for reason in ("an id that came before: 1", "a beginning that came before: 1", "plugins: 1", "blocked words: 1"):
        assert reason in record.message


def test_a_conversation_that_was_left_out_does_not_count_as_one_before(tmp_path):
    path = write(tmp_path, conversation("a", "OpenAI", *GOOD), conversation("a", *GOOD))
    [row] = samples(READER.read, "train", path)
    assert row.turns == exchange(*GOOD)


def test_ids_that_come_again_are_told_apart_where_nothing_is_cleaned(tmp_path):
    path = write(
        tmp_path,
        conversation("a", *GOOD),
        conversation("a", *GOOD),
        {"conversations": conversation(1, *GOOD)["conversations"]},
    )
    assert [row.id for row in samples(READER.read, "train", path, clean=False)] == ["a", "a#2", "item 3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (3, "found 3; expected an object"),
        ({"id": "x"}, "'conversations' is missing"),
        ({"conversations": conversation("x", *GOOD)["conversations"]}, "'id' is missing"),
        ({"id": "x", "conversations": "hello"}, "conversations is 'hello'; expected a list of at least one item"),
        ({"id": "x", "conversations": [3]}, "found 3; expected an object"),
        ({"id": "x", "conversations": [{"from": "human"}]}, "'value' is missing"),
        ({"id": "x", "conversations": [{"value": "q"}]}, "'from' is missing"),
        ({"id": "x", "conversations": [{"from": "human", "value": 3}]}, 'value is the number 3; write "3"'),
    ],
)
def test_broken_rows_are_flaws(tmp_path, row, reason):
    path = write(tmp_path, row, conversation("y", *GOOD))
    [flaw] = flaws(READER.read, "train", path)
    assert (flaw.id, flaw.path) == ("x" if isinstance(row, dict) and "id" in row else "item 1", str(path))
    assert reason in flaw.reason


def test_html_without_markdownify(monkeypatch):
    monkeypatch.setitem(sys.modules, "markdownify", None)
    assert mistake(READER.read, "train", HTML, html=True) == (
        f"task own: {HTML}: messages in HTML need the markdownify package: pip install markdownify"
    )


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("test", {}, "sharegpt has no split 'test'; allowed: train"),
        ("train", {"clean": "no"}, "sharegpt has no clean 'no'; allowed: False, True"),
        ("train", {"html": "yes"}, "sharegpt has no html 'yes'; allowed: False, True"),
    ],
)
def test_splits_and_options_that_it_does_not_have(split, options, message):
    assert mistake(READER.read, split, MARKDOWN, **options) == f"task own: {message}"


def test_a_file_that_is_missing_or_cut_short(tmp_path):
    assert "sharegpt.json cannot be read" in mistake(READER.read, "train", tmp_path / "sharegpt.json")
    assert "cannot be read (Is a directory)" in mistake(READER.read, "train", tmp_path)
    path = write(tmp_path, conversation("a", *GOOD), conversation("b", *GOOD))
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert "sharegpt.json is cut short or no JSON after 1 items" in mistake(READER.read, "train", path)
