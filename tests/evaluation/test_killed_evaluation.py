"""kill -9, then the same command again: the bytes of an evaluation that was never disturbed, and nothing twice.

Each command runs in a process of its own (`_forked_commands.py`), which kills itself at one exact file operation.
Batches are of two samples: the two tasks' validation samples make six, each task's test samples four, and its control
four more.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from equipoise.training.run_directory import RunDirectory
from evaluation._runs import files, finished_run, rows
from training import _checkpoint as tiny

Command = Callable[..., dict[str, Any]]
BATCHES = Counter(loss=6, answers=16)


def task(name: str, data: Path, tokens: int = 6, **settings: Any) -> dict[str, Any]:
    return {
        "name": name, "reader": "jsonl", "path": data, "metric": "exact_match", "max_new_tokens": tokens, **settings,
    }  # fmt: skip


def results(run: RunDirectory) -> dict[str, bytes]:
    """What an evaluation leaves behind."""
    made = {name for name in files(run.path) if not name.startswith(("model/", "recipe.yaml", "done.json"))}
    return {name: (run.path / name).read_bytes() for name in made}


class Case:
    """A run to disturb, and how its evaluation is started."""

    def __init__(self, command: Command, run: RunDirectory, *options: str):
        self.command = command
        self.run = run
        self.options = ("--batch-size", "2", *options)

    def evaluate(self, *options: str, **how: Any) -> Counter[str]:
        """To the end; returns how many batches the model worked on, by kind."""
        status, worked = self._start(*options, **how)
        assert status == 0
        return worked

    def die(self, *moment: Any, **how: Any) -> Counter[str]:
        """Up to an event on a file: its name, a part of the path, and the how many-th it is."""
        status, worked = self._start(kill=moment, **how)
        assert status == -signal.SIGKILL
        return worked

    def _start(self, *options: str, **how: Any) -> tuple[int, Counter[str]]:
        log = self.run.path.with_name("log.jsonl")
        log.unlink(missing_ok=True)
        answer = self.command("evaluate", self.run.path, *self.options, *options, log=str(log), **how)
        print(answer["printed"])
        return answer["status"], Counter(kind for kind, _ in rows(log)) if log.is_file() else Counter()


@pytest.fixture(scope="module")
def undisturbed(
    command: Command, checkpoint: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    case = Case(command, finished_run(folder / "run", checkpoint, task("colours", dataset), task("again", dataset, 3)))
    assert case.evaluate() == BATCHES
    return results(case.run)


@pytest.fixture
def case(command: Command, checkpoint: Path, dataset: Path, tmp_path: Path) -> Case:
    run = finished_run(tmp_path / "run", checkpoint, task("colours", dataset), task("again", dataset, 3))
    return Case(command, run)


@pytest.fixture
def small(command: Command, checkpoint: Path, tmp_path: Path) -> Case:
    """One task on data of its own: four batches, and no validation loss."""
    data = tiny.make_dataset(tmp_path / "data")
    run = finished_run(tmp_path / "run", checkpoint, task("colours", data, validation=None))
    return Case(command, run, "--no-controls")


def test_what_an_evaluation_leaves(undisturbed):
    assert undisturbed.keys() == {"scores.json", "predictions/colours.jsonl", "predictions/again.jsonl"}


def test_an_evaluation_repeats_to_the_byte(case, undisturbed):
    case.evaluate()
    assert results(case.run) == undisturbed
    assert case.evaluate() == BATCHES  # what is finished is not taken for something to go on with
    assert results(case.run) == undisturbed


@pytest.mark.parametrize(
    ("moment", "before", "after"),
    [
        (("open", "unfinished/validation+loss.0.jsonl", 3), {"loss": 3}, {"loss": 4, "answers": 16}),
        (("open", "unfinished/colours.0.jsonl", 3), {"loss": 6, "answers": 3}, {"answers": 14}),
        (("os.rename", "predictions/colours.jsonl", 1), {"loss": 6, "answers": 4}, {"answers": 12}),
        (("open", "unfinished/colours+shuffled.0.jsonl", 2), {"loss": 6, "answers": 6}, {"answers": 11}),
        (("os.rename", "scores.json", 1), {"loss": 6, "answers": 16}, {}),
        (("shutil.rmtree", "predictions/.unfinished", 1), {"loss": 6, "answers": 16}, {}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_killed_at(case, undisturbed, moment, before, after):
    assert case.die(*moment) == before
    assert case.evaluate() == after
    assert results(case.run) == undisturbed


def test_killed_again_and_again(case, undisturbed):
    worked = case.die("open", "unfinished/validation+loss.0.jsonl", 4)
    worked += case.die("os.rename", "unfinished/validation+loss.0.jsonl", 1)  # before it has begun to go on
    worked += case.die("open", "unfinished/colours.0.jsonl", 2)
    worked += case.die("open", "unfinished/colours.0.jsonl", 2)
    worked += case.die("os.rename", "predictions/again.jsonl", 1)
    worked += case.evaluate()
    assert results(case.run) == undisturbed
    assert worked == BATCHES + Counter(loss=1, answers=2)  # those that were in hand when the kill came


def test_killed_inside_a_line_and_inside_a_character(small):
    small.die("open", "unfinished/colours.0.jsonl", 4)
    kept = small.run.predictions / ".unfinished" / "colours.0.jsonl"
    third = kept.read_bytes().split(b"\n")[3]
    inside = next(place for place, byte in enumerate(third) if byte & 0b1100_0000 == 0b1000_0000)
    limit = kept.read_bytes().index(third) + inside
    shutil.rmtree(kept.parent)

    status, worked = small._start(limit=limit)
    assert (status, worked) == (-signal.SIGXFSZ, {"answers": 3})
    assert kept.stat().st_size == limit
    with pytest.raises(UnicodeDecodeError):
        kept.read_text(encoding="utf-8")
    assert small.evaluate() == {"answers": 2}
    resumed = results(small.run)
    small.evaluate()
    assert results(small.run) == resumed


def other_tokens(case: Case) -> None:
    content = yaml.safe_load(case.run.recipe_file.read_text())
    content["tasks"][0]["max_new_tokens"] = 4
    case.run.recipe_file.write_text(yaml.safe_dump(content))


def other_model(case: Case) -> None:
    file = case.run.model / "model.safetensors"
    save_file({name: -value for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


def other_question(case: Case) -> None:
    file = case.run.path.with_name("data") / "test.jsonl"
    file.write_text(file.read_text().replace("what colour is it", "name the colour"))


def other_picture(case: Case) -> None:
    Image.new("RGB", (16, 16), (0, 255, 0)).save(case.run.path.with_name("data") / "images" / "test-0.png")


@pytest.mark.parametrize(
    ("change", "options", "batches"),
    [
        (lambda _: None, (), 1),
        (other_tokens, (), 4),
        (other_model, (), 4),
        (other_question, (), 4),
        (other_picture, (), 4),
        (lambda _: None, ("--batch-size", "4"), 2),
    ],
    ids=["nothing", "max_new_tokens", "model", "question", "picture", "batch size"],
)
def test_answers_to_something_else_are_not_taken(small, change, options, batches):
    small.die("open", "unfinished/colours.0.jsonl", 4)  # with three of four batches kept
    change(small)
    assert small.evaluate(*options) == {"answers": batches}
    assert results(small.run).keys() == {"scores.json", "predictions/colours.jsonl"}


def test_a_loss_of_other_lengths_is_not_taken(case):
    case.die("os.rename", "predictions/colours.jsonl", 1)
    content = yaml.safe_load(case.run.recipe_file.read_text())
    content["train"] |= {"max_length": 25, "too_long": "cut"}
    case.run.recipe_file.write_text(yaml.safe_dump(content))
    assert case.evaluate() == {"loss": 6, "answers": 12}


def test_another_split_is_another_evaluation(case):
    case.die("open", "unfinished/again.0.jsonl", 3)
    assert case.evaluate("--split", "validation") == {"answers": 12}  # and the same validation loss
    asked = [row["id"] for row in rows(case.run.predictions / "colours.jsonl")]
    assert asked == [f"validation{number}" for number in range(6)]
    assert results(case.run).keys() == {"scores.json", "predictions/colours.jsonl", "predictions/again.jsonl"}
