"""ChatterBot's corpus: conversations as turns, other answers as samples of their own, no beginning in two splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from equipoise.data.readers import chatterbot
from equipoise.data.readers.files import watching
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError

SPLITS = ("train", "validation", "test")


def write(root: Path, **topics: object) -> Path:
    """The corpus's layout: conversations, or a file's whole content as text, by topic."""
    folder = root / "data" / "english"
    folder.mkdir(parents=True)
    for topic, content in topics.items():
        text = (
            content if isinstance(content, str) else yaml.safe_dump({"categories": [topic], "conversations": content})
        )
        (folder / f"{topic}.yml").write_text(text, encoding="utf-8")
    return root


def everything(root: Path | None = None) -> list[Sample | Flaw]:
    return [row for split in SPLITS for row in chatterbot.read("talk", split, root)]


def spoken(sample: Sample | Flaw) -> list[str]:
    """What is said, "user: Hello" and so on."""
    assert isinstance(sample, Sample), sample
    return [f"{turn.role}: {turn.text}" for turn in sample.turns]


def refused(split: str, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(chatterbot.read("talk", split, root))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_two_people_speak_in_turn(tmp_path):
    said = ["Hello ", "Hi", "How are you?", "Well."]
    [sample] = everything(write(tmp_path, greetings=[said]))
    assert spoken(sample) == ["user: Hello", "assistant: Hi", "user: How are you?", "assistant: Well."]
    assert (sample.id, sample.task, sample.references) == ("greetings-1", "talk", ("Well.",))
    assert (sample.images, sample.audios, sample.box) == ((), (), None)


def test_what_nobody_answers_is_left_out(tmp_path):
    [sample] = everything(write(tmp_path, greetings=[["Hello", "Hi", "How are you?"]]))
    assert spoken(sample) == ["user: Hello", "assistant: Hi"]
    assert sample.references == ("Hi",)


@pytest.mark.parametrize("topic", ["computers", "emotion"])
def test_where_a_topic_lists_other_answers_each_is_a_sample(tmp_path, topic):
    samples = everything(write(tmp_path, **{topic: [["q", "one", "two", "three"], ["p", "four"]]}))
    assert {sample.id: spoken(sample) for sample in samples} == {
        f"{topic}-1-1": ["user: q", "assistant: one"],
        f"{topic}-1-2": ["user: q", "assistant: two"],
        f"{topic}-1-3": ["user: q", "assistant: three"],
        f"{topic}-2-1": ["user: p", "assistant: four"],
    }


def test_conversations_that_begin_alike_share_a_split(tmp_path):
    same = [[f"Question {n}?", f"{n}"] for n in range(60)]
    alike = [[f"  question {n}", f"{n}, too"] for n in range(60)]
    root = write(tmp_path, ai=same, food=alike)
    sizes = {}
    for split in SPLITS:
        samples = list(chatterbot.read("talk", split, root))
        assert {s.id.split("-")[1] for s in samples if s.id[0] == "a"} == {
            s.id.split("-")[1] for s in samples if s.id[0] == "f"
        }
        sizes[split] = len(samples)
    assert sum(sizes.values()) == 120
    assert sizes["train"] > 80
    assert min(sizes.values()) > 0


def test_topics_come_in_the_order_of_their_names_and_conversations_in_theirs(tmp_path):
    root = write(tmp_path, b=[["same", "1"], ["same", "2"]], a=[["same", "3"]])
    assert [sample.id for sample in everything(root)] == ["a-1", "b-1", "b-2"]


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (["Is anybody there?"], "nobody answers 'Is anybody there?'; expected at least two utterances"),
        ([], "conversation is []; expected a list of at least one item"),
        ("Hello", "conversation is 'Hello'; expected a list of at least one item"),
        (["Hello", 1984], "an utterance is 1984; expected a text"),
        (["Hello", True], "an utterance is True; expected a text"),
        (["Hello", " "], "an utterance is empty; expected a text"),
    ],
)
def test_a_conversation_that_is_none_is_a_flaw_and_the_others_are_read(tmp_path, conversation, reason):
    root = write(tmp_path, food=[["a", "b"], conversation, ["a", "c"]])
    rows = everything(root)
    flaws = {row for row in rows if isinstance(row, Flaw)}
    assert flaws == {Flaw("food-2", str(root / "data/english/food.yml"), reason)}
    assert [row.id for row in rows if isinstance(row, Sample)] == ["food-1", "food-3"]


BROKEN = {
    "no YAML": ("conversations: [", "is no YAML ("),
    "a tag that would run code": ("!!python/object/apply:os.getcwd []", "is no YAML ("),
    "a list": ("- - a\n  - b\n", "has no list of conversations"),
    "no conversations": ("categories: [a]\n", "has no list of conversations"),
    "nothing": ("", "has no list of conversations"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN)
def test_files_that_are_not_the_corpuss(tmp_path, content, reason):
    root = write(tmp_path, food=content)
    assert refused("train", root).startswith(f"task talk: {root}/data/english/food.yml {reason}")


def test_files_that_are_not_text(tmp_path):
    root = write(tmp_path, food="")
    (root / "data/english/food.yml").write_bytes(b"conversations: [\xff]")
    assert "food.yml is no YAML (" in refused("train", root)


def test_a_folder_without_topics(tmp_path):
    assert refused("train", tmp_path) == (
        f"task talk: {tmp_path}/data/english holds no conversations; expected files TOPIC.yml"
    )


def test_an_unknown_split(tmp_path):
    assert refused("dev", tmp_path) == "task talk: chatterbot has no split 'dev'; allowed: train, validation, test"
    assert chatterbot.READER.splits == SPLITS
    assert not chatterbot.READER.needs_path


def test_every_file_and_their_folder_are_watched(tmp_path):
    folder = write(tmp_path, ai=[["a", "b"]], food=[["c", "d"]]) / "data" / "english"
    with watching() as opened:
        list(chatterbot.read("talk", "test", tmp_path))
    assert opened == {folder, folder / "ai.yml", folder / "food.yml"}


def test_the_packaged_corpus():
    splits = {split: list(chatterbot.read("talk", split)) for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 1641, "validation": 235, "test": 333}
    samples = [sample for rows in splits.values() for sample in rows]
    assert all(isinstance(sample, Sample) for sample in samples)
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        roles = [turn.role for turn in sample.turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    begun = {split: {sample.turns[0].text.lower() for sample in rows} for split, rows in splits.items()}
    assert not begun["train"] & (begun["validation"] | begun["test"])
    assert not begun["validation"] & begun["test"]
    # Of 2,026 conversations one lacks its dash, and 58 are lists of other answers.
    topics = Counter(sample.id.partition("-")[0] for sample in samples)
    assert sum(topics.values()) - topics["computers"] - topics["emotion"] == 2026 - 1 - 58
    by_id = {sample.id: sample for sample in samples}
    assert spoken(by_id["conversations-4"]) == ["user: Have you heard the news?", "assistant: What good news?"]
    assert spoken(by_id["health-1"])[-2:] == ["user: When?", "assistant: In the morning"]
    assert spoken(by_id["trivia-13"]) == [
        "user: In what year were the first Air Jordan sneakers released?", "assistant: 1984",
    ]  # fmt: skip
    assert "trivia-14" not in by_id
    assert spoken(by_id["trivia-15"])[1] == "assistant: Pandora"
    assert spoken(by_id["computers-2-3"])[1] == "assistant: You know, the big iron!"
