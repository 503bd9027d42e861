"""`equipoise data`: what it counts, what it finds, what of it would stop a run, and the sample as the model sees it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from _flawed import GOOD, LINES, assert_line, write_media, write_task
from PIL import Image
from rich.console import Console
from transformers import ProcessorMixin

from equipoise.data import inspect, tasks
from equipoise.data.collate import Collator
from equipoise.data.inspect import TaskReport, inspect_data, print_data, rendered
from equipoise.data.readers.reader import Reader
from equipoise.data.sample import Sample, Turn, exchange
from equipoise.errors import DataError
from equipoise.recipe import Recipe

END = "<|im_end|>"


@pytest.fixture
def collator(processor: ProcessorMixin) -> Collator:
    return Collator(processor)


def write(folder: Path, split: str, *rows: dict[str, Any] | str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps({**GOOD, **row}) for row in rows]
    (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def recipe(
    folder: Path, data: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **task: Any
) -> Recipe:
    one = {"name": "own", "reader": "jsonl", "path": folder, "validation": None, "test": None, **task}
    return Recipe.model_validate({"model": {"path": "a/b"}, "tasks": [one], "data": data or {}, "train": train or {}})


def report_on(settings: Recipe, collator: Collator) -> TaskReport:
    [report] = inspect_data(settings, collator)
    return report


def printed(reports: list[TaskReport], settings: Recipe, **options: Any) -> str:
    file = io.StringIO()
    print_data(reports, settings, Console(file=file, **options))
    return file.getvalue()


# ---------------------------------------------------------------------- counts and lengths


def test_samples_and_their_lengths_in_tokens(tmp_path, collator):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write(tmp_path, "train", {"prompt": "One?"}, {"prompt": "A longer one, is it?", "image": "a.png"})
    write(tmp_path, "test", {"prompt": "One?", "answer": "a longer answer"})
    report = report_on(recipe(tmp_path, test="test"), collator)
    count = collator.processor.tokenizer
    texts = (
        f"<|im_start|>user\nOne?{END}\n<|im_start|>assistant\na{END}",
        f"<|im_start|>user\nA longer one, is it?{END}\n<|im_start|>assistant\na{END}",
        f"<|im_start|>user\nOne?{END}\n<|im_start|>assistant\na longer answer{END}",
    )
    one, longer, test = (len(count(text)["input_ids"]) for text in texts)
    assert list(report.parts) == ["train", "test"]
    assert (report.parts["train"].samples, report.parts["train"].tokens) == (
        2,
        [one, longer + 16],
    )  # its image's tokens
    assert (report.parts["test"].samples, report.parts["test"].tokens) == (1, [test])
    assert (report.errors, report.parts["train"].flaws) == ([], [])
    assert not report.stops(recipe(tmp_path))


def test_the_lengths_are_of_a_hundred_samples(tmp_path, collator):
    write(tmp_path, "train", *({"prompt": "x " * number} for number in range(1, 301)))
    settings = recipe(tmp_path)
    report = report_on(settings, collator)
    [found] = report.parts.values()
    assert (found.samples, len(found.tokens)) == (300, 100)
    assert list(found.tokens) == sorted(found.tokens)
    assert found.tokens[0] < 60
    assert found.tokens[-1] > 250
    assert report_on(settings, collator).parts["train"].tokens == found.tokens
    assert report_on(recipe(tmp_path, train={"seed": 1}), collator).parts["train"].tokens != found.tokens
    text = printed([report], settings)
    assert "tokens: of 100 samples a part, drawn by the seed" in text
    row = next(line for line in text.splitlines() if "train" in line)
    mean = round(sum(found.tokens) / 100)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "own", "train", "300", "0", str(found.tokens[0]), str(mean), str(found.tokens[-1]), "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "too_long", "stops", "counts"),
    [
        (0, "raise", False, (0, 0)), (-1, "raise", True, (1, 0)), (-1, "cut", False, (1, 0)),
        (-2, "cut", True, (1, 1)), (-2, "raise", True, (1, 1)),
    ],
)  # fmt: skip
def test_what_max_length_does_not_allow(tmp_path, collator, extra, too_long, stops, counts):
    write(tmp_path, "train", {"prompt": "q " * 20}, {"prompt": "q"})
    [longest] = collator([Sample("1", "own", exchange(("q " * 20).strip(), "a"))])["input_ids"]  # "a" and the end
    settings = recipe(tmp_path, train={"max_length": len(longest) + extra, "too_long": too_long})
    report = report_on(settings, collator)
    assert (report.parts["train"].too_long, report.parts["train"].mute) == counts
    assert report.stops(settings) == stops
    assert ("nothing of an answer would be left" in printed([report], settings)) == bool(counts[1])


@pytest.mark.parametrize(("part", "stops"), [("validation", True), ("test", False)])
def test_max_length_does_not_bound_what_is_only_asked(tmp_path, collator, part, stops):
    write(tmp_path, "train", {"prompt": "q"})
    write(tmp_path, part, {"prompt": "q " * 20})
    [short] = collator([Sample("1", "own", exchange("q", "a"))])["input_ids"]
    settings = recipe(tmp_path, train={"max_length": len(short)}, **{part: part})
    report = report_on(settings, collator)
    assert list(report.parts) == ["train", part]
    assert report.stops(settings) == stops


# ---------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize("name", LINES)
def test_each_flaw_is_a_line_and_stops_a_run_that_does_not_skip(tmp_path, collator, name):
    folder = write_task(tmp_path / "data", write_media(tmp_path / "media"), name)
    settings = recipe(folder, metric="exact_match")
    report = report_on(settings, collator)
    assert report.parts["train"].samples == 2
    [line] = [line for line in printed([report], settings, width=40).splitlines() if line.startswith("unreadable: ")]
    assert_line(line.removeprefix("unreadable: "), folder, name)
    assert report.stops(settings)
    assert not report.stops(recipe(folder, {"on_error": "skip"}, metric="exact_match"))


def test_a_part_that_cannot_be_read_at_all_does_not_hide_the_others(tmp_path, collator):
    write(tmp_path, "test", {})
    settings = recipe(tmp_path, {"on_error": "skip"}, test="test")
    report = report_on(settings, collator)
    assert list(report.parts) == ["test"]
    assert report.broken == [f"task own: {tmp_path / 'train.jsonl'} cannot be read (No such file or directory)"]
    assert report.stops(settings)
    assert "unreadable: " not in printed([report], settings)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_file_of_which_nothing_can_be_read_shows_the_first_of_it(tmp_path, collator, on_error):
    write(tmp_path, "train", "{", "[", "{")
    settings = recipe(tmp_path, {"on_error": on_error}, hold_out={"test": 1}, test="test")
    report = report_on(settings, collator)
    [error] = report.errors
    assert error.startswith(f"task own: sample line 1: {tmp_path / 'train.jsonl'}: ")
    assert error.endswith("(readable in split 'train': 0 of 3 samples)")
    assert (report.parts, report.broken) == ({}, [])
    assert report.stops(settings)
    assert printed([report], settings) == f"unreadable: {error}\n"


def test_what_the_model_does_not_take_stops_a_run_and_the_rest_is_measured(tmp_path, collator):
    soundfile.write(tmp_path / "a.wav", [0.0], 16_000)
    write(tmp_path, "train", {"audio": "a.wav"}, {"prompt": "q"})
    settings = recipe(tmp_path, {"on_error": "skip"})
    report = report_on(settings, collator)
    [error] = report.errors
    assert error.startswith("task own: sample 1 has an audio; ")
    assert len(report.parts["train"].tokens) == 1
    assert report.example.startswith("<|im_start|>user\nq<|im_end|>")
    assert report.stops(settings)


def test_a_task_of_which_the_model_takes_nothing(tmp_path, collator):
    soundfile.write(tmp_path / "a.wav", [0.0], 16_000)
    write(tmp_path, "train", *[{"audio": "a.wav"}] * 30)
    settings = recipe(tmp_path)
    report = report_on(settings, collator)
    assert (report.parts["train"].samples, report.parts["train"].tokens, report.example) == (30, [], "")
    text = printed([report], settings)
    assert text.count("unreadable: ") == 20
    assert "... and 10 more in own\n" in text


def test_images_are_opened_again_each_time(tmp_path, collator):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write(tmp_path, "train", {}, {"image": "a.png"})
    settings = recipe(tmp_path)
    assert report_on(settings, collator).parts["train"].flaws == []
    (tmp_path / "a.png").write_bytes(b"no image")
    assert len(report_on(settings, collator).parts["train"].flaws) == 1
    (tmp_path / "a.png").unlink()
    assert report_on(settings, collator).parts["train"].flaws[0].reason == "image does not exist"


def test_parts_of_one_split_are_read_once_and_its_flaws_said_once(tmp_path, collator, monkeypatch):
    write(tmp_path, "train", *[{}] * 9, "{")
    settings = recipe(tmp_path, hold_out={"validation": 2, "test": 3}, validation="validation", test="test")
    reads = []
    index = tasks.index

    def counted(key: Any, read: Any, *rest: Any) -> Any:
        return index(key, lambda: reads.append(1) or read(), *rest)

    monkeypatch.setattr(tasks, "index", counted)
    report = report_on(settings, collator)
    assert {part: found.samples for part, found in report.parts.items()} == {"train": 4, "validation": 2, "test": 3}
    assert len(reads) == 1
    text = printed([report], settings)
    assert text.count("unreadable: ") == 1
    rows = [line.split("│")[2:5] for line in text.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["train", "4", "1"], ["validation", "2", ""], ["test", "3", ""]
    ]  # fmt: skip


def test_what_becomes_of_samples_that_cannot_be_read(tmp_path, collator):
    write(tmp_path, "train", {}, "{", {})
    write(tmp_path, "test", {}, "{", "[")
    split = {"test": "test"}
    refused, skipped = recipe(tmp_path, **split), recipe(tmp_path, {"on_error": "skip"}, **split)
    line = "train will refuse this: 3 samples cannot be read; data.on_error: skip leaves such samples out\n"
    assert line in printed([report_on(refused, collator)], refused, width=40)
    assert "left out by data.on_error: skip: 3 samples\n" in printed([report_on(skipped, collator)], skipped, width=40)
    (tmp_path / "test.jsonl").write_text(json.dumps(GOOD) + "\n")
    assert "refuse this: 1 sample cannot be read; data" in printed([report_on(refused, collator)], refused, width=40)
    write(tmp_path, "train", {})
    assert "refuse" not in printed([report_on(refused, collator)], refused)


@pytest.mark.parametrize("metric", ["exact_match", None])
def test_answers_that_would_be_cut_when_generated(tmp_path, collator, metric):
    length = len(collator.processor.tokenizer("a longer answer")["input_ids"])
    talk = [{"role": role, "content": "a longer answer"} for role in ("user", "assistant")]
    last = [{"role": role, "content": "a"} for role in ("user", "assistant")]
    write(tmp_path, "train", {"answer": "a longer answer"}, {"messages": talk + last}, {"messages": last + talk})
    for bound, said in ((length, False), (length - 1, True)):
        settings = recipe(tmp_path, metric=metric, max_new_tokens=bound)
        report = report_on(settings, collator)
        assert report.parts["train"].answers == [length, 1, length]
        line = f"own: 2 of 3 answers are longer than max_new_tokens: {bound}\n"
        assert (line in printed([report], settings, width=40)) == (said and metric is not None)
        assert not report.stops(settings)


def test_a_mistake_of_the_whole_task_is_said_once(tmp_path, collator):
    write(tmp_path, "train", {}, {})
    settings = recipe(tmp_path, hold_out={"validation": 2}, validation="validation")
    report = report_on(settings, collator)
    assert printed([report], settings) == ""  # no empty table either
    assert report.broken == ["tasks.own.hold_out: hold_out takes 2 of 2 samples and leaves none to train on"]


# ---------------------------------------------------------------------- duplicates


def test_what_two_parts_share(tmp_path, collator):
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "a-again.png").write_bytes((tmp_path / "a.png").read_bytes())
    train = [{"prompt": "one", "image": "a.png"}, {"prompt": "two", "image": "b.png"}, {"prompt": "three"}]
    write(tmp_path, "train", *train, {"prompt": "four", "answer": "b"})
    write(
        tmp_path,
        "validation",
        {"prompt": "one", "image": "a-again.png", "id": "x"},
        {"prompt": "three", "image": "c.png"},
    )
    write(tmp_path, "test", {"prompt": "two", "image": "a.png"}, {"prompt": "three", "references": ["z"]},
          {"prompt": "four"})  # fmt: skip
    settings = recipe(tmp_path, validation="validation", test="test")
    report = report_on(settings, collator)
    assert report.shared == {("train", "validation"): (1, 1), ("train", "test"): (1, 1), ("validation", "test"): (0, 1)}
    assert not report.stops(settings)
    text = printed([report], settings, width=40)
    assert "shared: own: 1 samples and 1 images or clips of train are also in validation\n" in text


def test_parts_that_share_nothing_are_not_mentioned(tmp_path, collator):
    write(tmp_path, "train", {"prompt": "one"})
    write(tmp_path, "test", {"prompt": "two"})
    settings = recipe(tmp_path, test="test")
    report = report_on(settings, collator)
    assert report.shared == {}
    assert "shared" not in printed([report], settings)


# ---------------------------------------------------------------------- as the model sees it


def test_the_sample_as_the_model_sees_it(tmp_path, collator):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    turns = (Turn("system", "Be  brief ."), *exchange("One?", "1"), *exchange("And\ntwo?", "2 ü"))
    sample = Sample("1", "own", turns, images=(tmp_path / "a.png",) * 2)
    image = collator.processor.image_token
    before = f"<|im_start|>system\nBe  brief .{END}\n<|im_start|>user\n{image}*32One?{END}\n<|im_start|>assistant\n"
    between = f"\n<|im_start|>user\nAnd\ntwo?{END}\n<|im_start|>assistant\n"
    assert rendered(sample, collator) == f"{before}⟦1{END}⟧{between}⟦2 ü{END}⟧"
    assert rendered(sample, collator, prompt_only=True) == f"{before}1{END}{between}"


def test_it_is_made_of_the_tokens_not_of_the_text(tmp_path, collator, monkeypatch):
    """What the processor changes shows."""
    sample = Sample("1", "own", exchange("q", "red"))

    def loses_the_question(samples: Any) -> Any:
        batch = Collator.__call__(collator, samples)
        return {name: value[:, 3:] for name, value in batch.items()}

    class Lossy:
        processor = collator.processor
        __call__ = staticmethod(loses_the_question)

    assert rendered(sample, Lossy()) == f"q{END}\n<|im_start|>assistant\n⟦red{END}⟧"


def test_the_example_is_worded_and_merged_as_a_run_has_it(tmp_path, collator):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write(tmp_path, "train", {"prompt": "one", "image": "a.png"}, {"prompt": "two", "image": "a.png"})
    settings = recipe(tmp_path, merge=True, response_format="In a word.")
    report = report_on(settings, collator)
    assert report.parts["train"].samples == 1
    assert report.example.count("In a word.<|im_end|>") == 2
    assert report.example.count("⟦a<|im_end|>⟧") == 2
    text = printed([report], settings, width=60)
    assert "own, as the model sees it; ⟦supervised⟧" in text
    assert text.rstrip("\n").endswith(report.example)


def test_where_answers_are_secret_prompts_are_measured(tmp_path, collator, monkeypatch):
    rows = {
        "train": Sample("1", "own", exchange("q", "a"), references=("a",)),
        "test": Sample("1", "own", (Turn("user", "a longer question"), Turn("assistant", ""))),
    }
    fake = Reader(lambda task, split, path: iter([rows[split]]), unanswered=frozenset({"test"}))
    monkeypatch.setattr(tasks, "find_reader", lambda name: fake)
    settings = recipe(tmp_path, test="test", metric="exact_match")
    report = report_on(settings, collator)
    prompt = f"<|im_start|>user\na longer question{END}\n<|im_start|>assistant\n"
    assert rendered(rows["test"], collator, prompt_only=True) == prompt
    assert report.parts["test"].tokens == [len(collator.processor.tokenizer(prompt)["input_ids"])]
    assert not report.stops(settings)


def test_a_task_whose_training_part_cannot_be_read_shows_a_prompt(tmp_path, collator, monkeypatch):
    def read(task: str, split: str, path: Path) -> Iterator[Sample]:
        if split == "train":
            raise DataError("gone")
        yield Sample("1", "own", (Turn("user", "q"), Turn("assistant", "")))

    monkeypatch.setattr(tasks, "find_reader", lambda name: Reader(read, unanswered=frozenset({"test"})))
    report = report_on(recipe(tmp_path, test="test"), collator)
    assert (report.broken, report.errors) == (["gone"], [])
    assert report.example == f"<|im_start|>user\nq{END}\n<|im_start|>assistant\n"


def test_a_recipe_that_trains_on_nothing_is_refused(tmp_path, collator):
    write(tmp_path, "test", {})
    settings = recipe(tmp_path, test="test")
    settings = settings.model_copy(update={"tasks": [settings.tasks[0].model_copy(update={"train": None})]})
    with pytest.raises(DataError, match=r"^no task has a training part"):
        inspect_data(settings, collator)


# ---------------------------------------------------------------------- hostile texts

HOSTILE = "[red]r[/red] [/] :smile: \x1b[31mESC\x1b]8;;http://x\x07 \x9b2J\r \u202eback"


@pytest.mark.parametrize("markup", [True, False])
def test_a_hostile_text_is_shown_and_styles_nothing(tmp_path, collator, markup):
    soundfile.write(tmp_path / "a.wav", [0.0], 16_000)
    write(
        tmp_path, "train",
        {"prompt": HOSTILE, "answer": "[bold]a"},
        {"id": "[red]\n\x1b[2J", "prompt": "q", "image": "no\x1b[31m\n[red]ne.png"},
        {"id": "\x1b[2J\nx", "audio": "a.wav"},
    )  # fmt: skip
    settings = recipe(tmp_path)
    report = report_on(settings, collator)
    text = printed([report], settings, markup=markup, force_terminal=True, width=200, color_system="truecolor")
    shown = text[text.index("unreadable: ") :]
    title, rule = "own, as the model sees it; ⟦supervised⟧", "─"
    allowed = {line for line in shown.splitlines() if title in line and rule in line}  # rich colours its rule
    plain = "\n".join(line for line in shown.splitlines() if line not in allowed)
    assert len(allowed) == 1
    assert "\x1b" not in plain
    assert plain.replace("\n", "").isprintable()
    assert r"[red]r[/red] [/] :smile: \x1b[31mESC\x1b]8;;http://x\x07 \x9b2J\r \u202eback" in plain
    assert "⟦[bold]a<|im_end|>⟧" in plain
    lines = [line for line in plain.splitlines() if line.startswith("unreadable: ")]
    assert len(lines) == 2
    assert lines[0].startswith(r"unreadable: task own: sample \x1b[2J\nx has an audio; ")
    assert lines[1] == (
        rf"unreadable: task own: sample line 2: {tmp_path}/no\x1b[31m\n[red]ne.png: image does not exist"
    )


def test_what_is_read_is_told(tmp_path, collator):
    write(tmp_path, "train", {})
    told: list[str] = []
    inspect.inspect_data(recipe(tmp_path), collator, told.append)
    assert told == ["own, train", "own, validation", "own, test"]
