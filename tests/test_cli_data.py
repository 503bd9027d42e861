"""Samples that cannot be read, at the command line: `equipoise data` finds them, `equipoise train` stops at them or
leaves them out and says so; each is one line, and none a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from _commands import put_back
from data import _flawed
from data._flawed import GOOD, LINES, assert_line
from equipoise import cli
from models import zoo

Command = Callable[..., "Ended"]


@dataclass
class Ended:
    """How a command ended and what it printed, but for the bars that transformers draws in this process."""

    status: int
    out: str
    error: str

    def lines(self, start: str) -> list[str]:
        """What follows the start in the lines of the output that begin with it."""
        return [line.removeprefix(start) for line in self.out.splitlines() if line.startswith(start)]

    def says(self, text: str) -> bool:
        """Whether the output has the text, wherever a narrow terminal breaks it."""
        return "".join(text.split()) in "".join(self.out.split())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy that takes images and audio."""
    return zoo.make("audio_vision", tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _flawed.write_media(tmp_path_factory.mktemp("media") / "files")


@pytest.fixture
def equipoise(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Command:
    """Run `equipoise ARGUMENTS...` in this process."""
    put_back(monkeypatch)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["equipoise", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, error = capfd.readouterr()
        error = re.sub(r"\rLoading weights: [^\r\n]*\n?", "", error)
        return Ended(ended.value.code or 0, out, error)  # type: ignore[arg-type]

    return run


@pytest.fixture
def write_recipe(tmp_path: Path, checkpoint: Path) -> Callable[..., Path]:
    """A recipe that sees each of its few samples in one step."""

    def write(folder: Path, **task: Any) -> Path:
        one = {"name": "own", "reader": "jsonl", "path": str(folder), "validation": None, "test": None, **task}
        content = {
            "model": {"path": str(checkpoint), "lora": {"rank": 2}},
            "tasks": [{"metric": "exact_match", **one}],
            "balance": {"modules": {"schedule": "constant", "measure": False}},
            "train": {"max_steps": 1, "batch_size": 8, "threads": 1},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def one_line(ended: Ended) -> str:
    assert ended.status == 2
    assert len(ended.error.splitlines()) == 1, ended.error
    assert ended.error.startswith("equipoise: ")
    return ended.error.removeprefix("equipoise: ").rstrip("\n")


@pytest.mark.parametrize("name", LINES)
def test_a_sample_that_cannot_be_read(equipoise, write_recipe, media, tmp_path, name):
    folder = _flawed.write_task(tmp_path / "data", media, name)
    recipe = write_recipe(folder)

    stops, passes = equipoise("data", recipe), equipoise("data", recipe, "data.on_error=skip")
    assert (stops.status, passes.status) == (1, 0)
    assert stops.error == passes.error == ""
    for found in (stops, passes):
        [line] = found.lines("unreadable: ")
        assert_line(line, folder, name)

    stopped = equipoise("train", recipe, "--out", tmp_path / "stopped")
    assert_line(one_line(stopped), folder, name)
    assert one_line(stopped) == line
    assert not (tmp_path / "stopped/done.json").exists()

    run = tmp_path / "run"
    went_on = equipoise("train", recipe, "data.on_error=skip", "--out", run)
    assert (went_on.status, went_on.error) == (0, "")
    assert went_on.says(f"own, train: 1 of 3 samples left out; the first: {line}")
    counts = {"samples": 2, "skipped": 1, "flaws": [line]}
    assert json.loads((run / "data.json").read_text(encoding="utf-8")) == {"train": {"own": counts}}
    assert (run / "done.json").is_file()


def test_samples_that_can_all_be_read(equipoise, write_recipe, media, tmp_path):
    folder = _flawed.write_task(tmp_path / "data", media, "a missing image")
    (folder / "train.jsonl").write_text(json.dumps(GOOD) + "\n")
    found = equipoise("data", write_recipe(folder))
    assert (found.status, found.error) == (0, "")
    assert "unreadable: " not in found.out
    assert "ASSISTANT:⟦ a</s>⟧\n" in found.out
    ended = equipoise("train", write_recipe(folder), "--out", tmp_path / "run")
    assert (ended.status, ended.error) == (0, "")
    assert "left out" not in ended.out
    found = json.loads((tmp_path / "run/data.json").read_text())
    assert found == {"train": {"own": {"samples": 1, "skipped": 0, "flaws": []}}}


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_list_that_breaks_off_ends_it_always(equipoise, write_recipe, tmp_path, on_error):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    source = tmp_path / "train.json"
    source.write_text(json.dumps([{"id": str(number), "conversations": turns} for number in range(3)])[:-20])
    recipe = write_recipe(tmp_path, reader="llava")
    line = f"task own: {source} is cut short or no JSON after 2 items (parse error: premature EOF)"
    found = equipoise("data", recipe, f"data.on_error={on_error}")
    assert (one_line(found), found.out) == (line, "")
    assert one_line(equipoise("train", recipe, f"data.on_error={on_error}", "--out", tmp_path / "run")) == line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [["data"], ["train", "--out", "run"]], ids=lambda command: command[0])
def test_a_recipe_that_trains_on_nothing(equipoise, write_recipe, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.jsonl").write_text(json.dumps(GOOD) + "\n")
    ended = equipoise(*command[:1], write_recipe(tmp_path, train=None, test="test"), *command[1:])
    assert one_line(ended) == "no task has a training part: train is null in all of them"


def test_a_validation_part_is_counted_too(equipoise, write_recipe, media, tmp_path):
    folder = _flawed.write_task(tmp_path / "data", media, "a cut line")
    (folder / "validation.jsonl").write_text(f"{{\n{json.dumps(GOOD)}\n{{\n")
    recipe = write_recipe(folder, validation="validation")
    ended = equipoise("train", recipe, "data.on_error=skip", "train.eval_steps=1", "--out", tmp_path / "run")
    assert (ended.status, ended.error) == (0, "")
    found = json.loads((tmp_path / "run/data.json").read_text())
    counts = {part: (tasks["own"]["samples"], tasks["own"]["skipped"]) for part, tasks in found.items()}
    assert counts == {"train": (2, 1), "validation": (1, 2)}
    assert ended.says("own, validation: 2 of 3 samples left out; the first: task own: sample line 1: ")


@pytest.mark.parametrize("arguments", [["data"], ["train", "--out", "run"]], ids=lambda arguments: arguments[0])
def test_in_a_process_of_its_own(write_recipe, media, tmp_path, arguments):
    """Where nothing else prints, neither."""
    folder = _flawed.write_task(tmp_path / "data", media, "20,000 x 20,000")
    command, *options = arguments
    process = subprocess.run(
        [Path(sys.executable).with_name("equipoise"), command, write_recipe(folder), *options],
        cwd=tmp_path, text=True, capture_output=True, timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "60"},
    )  # fmt: skip
    ended = Ended(process.returncode, process.stdout, process.stderr)
    if command == "train":
        assert_line(one_line(ended), folder, "20,000 x 20,000")
    else:
        assert (ended.status, ended.error) == (1, "")
        [line] = ended.lines("unreadable: ")
        assert_line(line, folder, "20,000 x 20,000")
