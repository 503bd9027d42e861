"""`equipoise evaluate` as its user meets it: what it prints, what it leaves in the run's folder, what it refuses.

Runs are made by hand from an untuned toy checkpoint. Where scores are to be known beforehand, the model's answers are
replaced by written ones.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from PIL import Image
from rich.console import Console

from _commands import put_back
from equipoise import cli
from equipoise.data.sample import Sample
from equipoise.evaluation import evaluate as evaluation
from equipoise.metrics import METRICS
from equipoise.training.run_directory import RunDirectory
from evaluation._runs import files, finished_run, rows, write_split
from training import _checkpoint as tiny

Command = Callable[..., tuple[int, str, str]]
METRIC_OF = {"right": "exact_match", "wrong": "multiple_choice"}
VQAV2 = Path(__file__).parent / "data" / "fixtures" / "vqav2"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Command:
    """Run `equipoise evaluate ARGUMENTS...` in this process; returns its status and what it printed."""
    put_back(monkeypatch)
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", False)  # it was imported too early to be told
    monkeypatch.setattr(cli, "console", Console(markup=False, width=400))

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["equipoise", "evaluate", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capfd.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def refusal(command: Command) -> Callable[..., str]:
    """The one line of a command that is refused."""

    def run(*arguments: Any) -> str:
        status, _, errors = command(*arguments)
        assert status == 2
        assert errors.startswith("equipoise: ")
        assert errors.count("\n") == 1, errors
        return errors.removeprefix("equipoise: ").rstrip()

    return run


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], list[list[str]]]:
    """Replace the model's answers by written ones, by sample id; returns the ids of each batch it is asked."""

    def script(answers: Mapping[str, str]) -> list[list[str]]:
        asked: list[list[str]] = []

        class Written:
            def __init__(self, *_: Any) -> None:
                pass

            def answer(self, samples: Sequence[Sample], max_new_tokens: int) -> list[str]:
                asked.append([sample.id for sample in samples])
                return [answers[sample.id] for sample in samples]

        monkeypatch.setattr(evaluation, "TransformersEngine", Written)
        return asked

    return script


def task(data: Path, **settings: Any) -> dict[str, Any]:
    """On data of the `jsonl` reader, for its test part alone."""
    return {
        "name": "own", "reader": "jsonl", "path": data, "metric": "exact_match", "train": None, "validation": None,
        **settings,
    }  # fmt: skip


def cells(printed: str, name: str) -> list[str]:
    """The row of the printed table that begins with a name."""
    [line] = [line for line in printed.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def picture(path: Path, colour: tuple[int, int, int] = (200, 40, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(path)
    return path


# ------------------------------------------------------------------ what it leaves and prints


def test_predictions_scores_and_the_table(command, says, checkpoint, tmp_path):
    data = tmp_path / "data"
    picture(data / "a.png")
    picture(data / "b.png", (0, 0, 90))
    soundfile.write(data / "c.wav", np.full(800, 0.1), 16_000)
    half = "[0.0, 0.0, 0.5, 1.0]"
    write_split(
        data, "test",
        [
            {"id": "a", "image": "a.png", "prompt": "Where is it?", "answer": half},
            {"id": "b", "image": "b.png", "prompt": "Where else?", "answer": half, "references": [half, "[0,0,1,0.1]"]},
            {"id": "c", "audio": "c.wav", "prompt": "Where from?", "answer": half},
        ],
    )  # fmt: skip
    says({"a": half, "b": "[0, 0, 1, 1]", "c": "nowhere “at all”"})
    run = finished_run(tmp_path / "run", checkpoint, task(data, metric="iou", response_format="As a box."))
    status, printed, _ = command(run.path, "--no-controls")

    assert status == 0
    assert files(run.path / "predictions") == {"own.jsonl"}
    half_of_it = {"references": [half], "audios": []}
    assert rows(run.predictions / "own.jsonl") == [
        {
            "id": "a", "prompt": "Where is it?\nAs a box.", "prediction": half, **half_of_it, "score": 1.0,
            "images": [str(data / "a.png")],
        },
        {
            "id": "b", "prompt": "Where else?\nAs a box.", "prediction": "[0, 0, 1, 1]", "score": 0.5,
            "references": [half, "[0,0,1,0.1]"], "images": [str(data / "b.png")], "audios": [],
        },
        {
            "id": "c", "prompt": "Where from?\nAs a box.", "prediction": "nowhere “at all”", "references": [half],
            "score": 0.0, "images": [], "audios": [str(data / "c.wav")],
        },
    ]  # fmt: skip
    entry = {"metric": "iou", "value": 0.5, "samples": 3, "also": {"accuracy_at_0.5": pytest.approx(1 / 3)}}
    assert run.scores() == {"split": "test", "tasks": {"own": entry}}
    assert cells(printed, "own") == ["own", "iou", "0.500", "3", "0", "-", "-"]
    assert "│ accuracy_at_0.5 │ 0.333 │" in re.sub(" +", " ", printed)
    assert f"scores: {run.scores_file}" in printed
    assert f"predictions: {run.predictions}" in printed


def test_controls(command, says, checkpoint, tmp_path):
    data = tmp_path / "data"
    for name in ("a", "b"):
        picture(data / f"{name}.png", (len(name), 0, 0))
    write_split(data, "train", [{"prompt": "q", "answer": answer} for answer in ("no", "yes", "yes")])
    answers = {"a": "no", "b": "yes", "c": "yes", "d": "yes"}
    asked = [{"id": name, "image": f"{name}.png", "prompt": "q", "answer": answers[name]} for name in ("a", "b")]
    write_split(data, "test", asked + [{"id": name, "prompt": "q", "answer": answers[name]} for name in ("c", "d")])
    batches = says(answers)
    run = finished_run(tmp_path / "run", checkpoint, task(data, train="train"))
    status, printed, _ = command(run.path, "--batch-size", "3")

    assert status == 0
    assert batches == [["a", "b", "c"], ["d"]] * 2
    entry = {"metric": "exact_match", "value": 1.0, "samples": 4, "majority": 0.75, "shuffled_inputs": 1.0}
    assert run.scores()["tasks"] == {"own": entry}
    assert cells(printed, "own") == ["own", "exact_match", "1.000", "4", "0", "0.750", "1.000"]


def test_a_task_without_images_and_audio_has_nothing_to_shuffle(command, says, checkpoint, tmp_path):
    data = write_split(tmp_path / "data", "test", [{"id": "a", "prompt": "q", "answer": "yes"}])
    says({"a": "yes"})
    run = finished_run(tmp_path / "run", checkpoint, task(data))
    assert command(run.path)[0] == 0
    assert run.scores()["tasks"] == {"own": {"metric": "exact_match", "value": 1.0, "samples": 1}}


def test_samples_that_cannot_be_read_are_counted(command, says, checkpoint, tmp_path):
    data = tmp_path / "data"
    picture(data / "whole.png")
    (data / "cut.png").write_bytes((data / "whole.png").read_bytes()[:40])
    names = {"a": "whole.png", "b": "cut.png", "c": "gone.png", "d": "whole.png"}
    write_split(data, "test", [{"id": i, "image": image, "prompt": "q", "answer": "yes"} for i, image in names.items()])
    says({"a": "yes", "d": "no"})
    run = finished_run(tmp_path / "run", checkpoint, task(data), data={"on_error": "skip"})
    status, printed, _ = command(run.path, "--no-controls")
    assert status == 0
    assert run.scores()["tasks"] == {"own": {"metric": "exact_match", "value": 0.5, "samples": 2, "skipped": 2}}
    assert cells(printed, "own") == ["own", "exact_match", "0.500", "2", "2", "-", "-"]
    assert [row["id"] for row in rows(run.predictions / "own.jsonl")] == ["a", "d"]


def test_one_that_cannot_be_read_is_a_line_where_none_may_be_left_out(refusal, checkpoint, tmp_path):
    data = tmp_path / "data"
    picture(data / "whole.png")
    (data / "cut.png").write_bytes((data / "whole.png").read_bytes()[:40])
    asked = [{"id": name, "image": f"{name}.png", "prompt": "q", "answer": "yes"} for name in ("whole", "cut")]
    run = finished_run(tmp_path / "run", checkpoint, task(write_split(data, "test", asked)))
    assert refusal(run.path).startswith(f"task own: sample cut: {data / 'cut.png'}: image cannot be read")
    picture(data / "cut.png")
    shutil.rmtree(data)
    assert refusal(run.path) == f"{run.recipe_file}: tasks.own.path: {data} does not exist"


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_that_says_nothing_scores_nothing(command, says, checkpoint, tmp_path, metric):
    references = ["[0.1, 0.1, 0.5, 0.9]"] if metric in ("iou", "box_accuracy") else ["a cat", "B"]
    asked = [{"id": str(i), "prompt": "q", "answer": "a cat", "references": references} for i in range(3)]
    says({str(number): "" for number in range(3)})
    run = finished_run(tmp_path / "run", checkpoint, task(write_split(tmp_path / "data", "test", asked), metric=metric))
    assert command(run.path)[0] == 0
    assert run.scores()["tasks"]["own"]["value"] == 0.0
    assert [(row["prediction"], row["score"]) for row in rows(run.predictions / "own.jsonl")] == [("", 0.0)] * 3


def test_a_real_model_that_ends_at_once(command, checkpoint, tmp_path):
    data = tmp_path / "data"
    picture(data / "a.png")
    write_split(
        data, "test", [{"image": "a.png", "prompt": "what is it", "answer": "red"}, {"prompt": "q", "answer": "a"}]
    )
    run = finished_run(tmp_path / "run", checkpoint, task(data))
    settings = json.loads((run.model / "generation_config.json").read_text())
    others = set(range(len(tiny.tokenizer()))) - {settings["eos_token_id"]}
    (run.model / "generation_config.json").write_text(json.dumps({**settings, "suppress_tokens": sorted(others)}))
    assert command(run.path)[0] == 0
    assert [row["prediction"] for row in rows(run.predictions / "own.jsonl")] == ["", ""]
    assert run.scores()["tasks"]["own"]["value"] == 0.0


# ------------------------------------------------------------------ parts


def test_the_validation_part_of_merged_and_held_out_data(command, checkpoint, tmp_path):
    """Thirty questions about one picture are answered yes, one about each of twelve others no: merged to conversations,
    most end in a no; question by question, most answers are a yes."""
    data = tmp_path / "data"
    asked = [
        {"id": f"a{i}", "image": f"{picture(data / 'a.png').name}", "prompt": f"q{i}", "answer": "yes"}
        for i in range(30)
    ]
    for number in range(12):
        image = picture(data / f"{number}.png", (0, 10 * number, 0))
        asked.append({"id": f"b{number}", "image": image.name, "prompt": "q", "answer": "no"})
    write_split(data, "train", asked)
    settings = {"train": "train", "validation": "validation", "hold_out": {"validation": 9, "test": 5}, "merge": True}
    run = finished_run(tmp_path / "run", checkpoint, task(data, **settings, max_new_tokens=2))
    assert command(run.path, "--split", "validation", "--batch-size", "4")[0] == 0

    predictions = rows(run.predictions / "own.jsonl")
    references = {row["id"]: [row["answer"]] for row in asked}
    assert len({row["id"] for row in predictions}) == 9
    assert all(row["references"] == references[row["id"]] for row in predictions)  # no conversation, whose id has a +
    entry = run.scores()["tasks"]["own"]
    assert entry["samples"] == 9
    assert entry["majority"] == sum(row["references"] == ["yes"] for row in predictions) / 9
    assert 0 < entry["majority"] < 1
    assert command(run.path, "--batch-size", "4")[0] == 0
    assert {row["id"] for row in rows(run.predictions / "own.jsonl")}.isdisjoint(row["id"] for row in predictions)


def test_an_unanswered_validation_part_is_left_out_of_the_validation_loss(command, checkpoint, tmp_path):
    data = write_split(tmp_path / "data", "validation", [{"prompt": "what colour is it", "answer": "red"}])
    write_split(data, "test", [{"prompt": "what colour is it", "answer": "red"}])
    own = task(data, validation="validation", max_new_tokens=1)
    secret = {"name": "vqa", "reader": "vqav2", "path": VQAV2, "train": None, "validation": "test-dev", "test": None}
    losses = []
    for number, tasks in enumerate([[own], [own, secret], [{**own, "validation": None}, secret]]):
        run = finished_run(tmp_path / f"run{number}", checkpoint, *tasks)
        assert command(run.path)[0] == 0
        losses.append(run.scores().get("validation_loss"))
    assert losses[0] == losses[1] > 0
    assert losses[2] is None


# ------------------------------------------------------------------ VQAv2's server


def vqav2(path: Path) -> dict[str, Any]:
    return {
        "name": "vqa", "reader": "vqav2", "path": path, "metric": "vqa_accuracy", "train": "train",
        "validation": "validation", "test": "test-dev", "max_new_tokens": 2,
    }  # fmt: skip


def test_test_dev_is_answered_for_the_server_and_not_scored(command, says, checkpoint, tmp_path):
    run = finished_run(tmp_path / "run", checkpoint, vqav2(VQAV2))
    says({"262144005": "A Circle.", "1001": "Yes"})
    status, printed, _ = command(run.path)
    assert status == 0
    submission = {"file": "submissions/vqa.json", "questions": 3, "answered": 2}
    entry = {"metric": "vqa_accuracy", "value": None, "samples": 2, "submission": submission}
    scores = run.scores()
    assert scores["tasks"] == {"vqa": entry}
    assert scores["validation_loss"] > 0  # its validation part has answers
    assert cells(printed, "vqa") == ["vqa", "vqa_accuracy", "-", "2", "0", "-", "-"]
    assert "vqa: the answers are secret; upload submissions/vqa.json (2 of 3 questions answered)" in printed

    predictions = rows(run.predictions / "vqa.jsonl")
    assert [(row["id"], row["prediction"]) for row in predictions] == [("262144005", "A Circle."), ("1001", "Yes")]
    assert all(row["references"] == [] and row["score"] is None for row in predictions)
    assert json.loads((run.submissions / "vqa.json").read_text()) == [
        {"question_id": 262144005, "answer": "circle"},
        {"question_id": 1001, "answer": "yes"},
        {"question_id": 1000, "answer": ""},  # of test2015 alone; the server wants it all the same
    ]


def test_without_test2015_s_questions_the_submission_holds_what_was_asked(command, says, checkpoint, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(VQAV2, data)
    (data / "v2_OpenEnded_mscoco_test2015_questions.json").unlink()
    run = finished_run(tmp_path / "run", checkpoint, vqav2(data))
    says({"262144005": "a circle", "1001": "yes"})
    status, printed, _ = command(run.path)
    assert status == 0
    assert "(2 of 2 questions answered)" in printed
    assert [one["question_id"] for one in json.loads((run.submissions / "vqa.json").read_text())] == [262144005, 1001]


def test_the_validation_part_of_vqav2_is_scored_and_not_submitted(command, says, checkpoint, tmp_path):
    run = finished_run(tmp_path / "run", checkpoint, vqav2(VQAV2))
    says({"42000": "red", "73001": "maybe"})
    assert command(run.path, "--split", "validation")[0] == 0
    entry = run.scores()["tasks"]["vqa"]
    assert [row["score"] for row in rows(run.predictions / "vqa.jsonl")] == [1.0, 0.0]
    assert entry["value"] == 0.5
    assert not run.submissions.exists()


def test_what_a_killed_evaluation_left_is_cleared_away(command, says, checkpoint, tmp_path):
    run = finished_run(tmp_path / "run", checkpoint, vqav2(VQAV2))
    says({"262144005": "a circle", "1001": "yes"})
    for folder, name in ((run.path, "scores.json"), (run.predictions, "vqa.jsonl"), (run.submissions, "vqa.json")):
        folder.mkdir(exist_ok=True)
        (folder / f".{name}-a8d3").write_text("[")
    (run.predictions / ".unfinished").mkdir()
    (run.predictions / ".unfinished" / "other.7.jsonl").write_text('"another evaluation"')
    assert command(run.path)[0] == 0
    left = {name for name in files(run.path) if not name.startswith("model/")}
    assert left == {"recipe.yaml", "done.json", "scores.json", "predictions/vqa.jsonl", "submissions/vqa.json"}


def test_the_recipe_s_threads_are_used(command, says, checkpoint, tmp_path, monkeypatch):
    data = write_split(tmp_path / "data", "test", [{"id": "a", "prompt": "q", "answer": "yes"}])
    says({"a": "yes"})
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    run = finished_run(tmp_path / "run", checkpoint, task(data), train={"threads": 3})
    assert command(run.path)[0] == 0
    assert asked == [3]


# ------------------------------------------------------------------ what it refuses


def test_runs_that_cannot_be_evaluated(refusal, checkpoint, tmp_path):
    data = write_split(tmp_path / "data", "test", [{"prompt": "q", "answer": "a"}])
    run = finished_run(tmp_path / "run", checkpoint, task(data))
    assert refusal(run.path, "--split", "validation") == f"{run.path}: no task has both a metric and a validation part"
    shutil.rmtree(run.model)
    assert refusal(run.path) == f"{run.path}: the tuned model is gone; its folder was {run.model}"
    run.done_file.unlink()
    assert refusal(run.path) == (
        f"{run.path}: training has not finished (no done.json); equipoise train RECIPE --resume ends it, "
        "or wait, if it is still running"
    )
    assert refusal(data) == f"{data} is not a run directory: it has no recipe.yaml"
    unscored = finished_run(tmp_path / "unscored", checkpoint, task(data, metric=None))
    assert refusal(unscored.path) == f"{unscored.path}: no task has both a metric and a test part"


def test_data_and_metrics_are_tried_before_the_model_works(refusal, says, checkpoint, tmp_path):
    data = write_split(tmp_path / "data", "test", [{"id": "a", "prompt": "q", "answer": "a"}])
    asked = says({"a": "a"})
    tasks = [task(data, train="train", name=name, metric=metric) for name, metric in METRIC_OF.items()]
    run = finished_run(tmp_path / "run", checkpoint, *tasks)
    assert refusal(run.path).startswith(
        f"task right: {data / 'train.jsonl'} cannot be read"
    )  # for the commonest answer
    write_split(data, "train", [{"prompt": "q", "answer": "a"}])
    assert refusal(run.path).startswith("task wrong: sample 0: multiple_choice takes two references")
    assert asked == []


def test_vllm_s_refusals(refusal, checkpoint, tmp_path, monkeypatch):
    data = write_split(tmp_path / "data", "test", [{"prompt": "q", "answer": "a"}])
    run = finished_run(tmp_path / "run", checkpoint, task(data))
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert refusal(run.path, "--engine", "vllm") == "vLLM is not installed; evaluate with --engine transformers"
    (run.model / "adapter_config.json").write_text("{}")
    assert refusal(run.path, "--engine", "vllm").startswith(
        f"{run.model} holds an adapter and vLLM serves whole models"
    )


def test_more_processes_than_can_share_are_refused(refusal, checkpoint, tmp_path, monkeypatch):
    data = write_split(tmp_path / "data", "test", [{"prompt": "q", "answer": "a"}])
    run = finished_run(tmp_path / "run", checkpoint, task(data))
    evaluation._state()  # accelerate looks once
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refusal(run.path) == "2 processes were started, and on cpu they cannot share the work"


# ------------------------------------------------------------------ progress


def shown(run: RunDirectory) -> list[str]:
    """The states of the progress bar, as text."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    evaluation.evaluate(run, screen, batch_size=2)
    return re.findall(r"evaluating run [^\r\n]*", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue()))


def test_the_bar_counts_samples_and_says_how_long_it_takes(says, checkpoint, tmp_path):
    data = write_split(tmp_path / "data", "test", [{"id": str(i), "prompt": "q", "answer": "a"} for i in range(5)])
    says({str(number): "a" for number in range(5)})
    states = shown(finished_run(tmp_path / "run", checkpoint, task(data)))
    assert re.search(r"0/5 0:00:0\d -:--:--", states[0])
    assert re.search(r"5/5 0:00:0\d 0:00:00", states[-1])
