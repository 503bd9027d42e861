"""The files of a run directory, one by one: written whole, read tolerantly, rewound exactly."""

from __future__ import annotations

import json
import math
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from equipoise.errors import RunError
from equipoise.training.run_directory import LineLog, RunDirectory, write_atomically, write_json


def make_checkpoint(run: RunDirectory, step: int, state: str | None = None) -> Path:
    folder = run.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("w")
    if state is not None:
        (folder / "trainer_state.json").write_text(state)
    return folder


def test_write_atomically_writes_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "below" / "file.txt"
    write_atomically(file, "first")
    write_atomically(file, "zweites, größer")
    assert file.read_text(encoding="utf-8") == "zweites, größer"
    assert [path.name for path in file.parent.iterdir()] == ["file.txt"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@pytest.mark.parametrize("broken", ["fsync", "replace", "chmod"])
def test_write_atomically_leaves_the_old_file_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_write_json_leaves_the_old_file_where_a_value_is_not_json(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": {1, 2}})
    assert json.loads(file.read_text()) == {"a": 1}


def test_newest_checkpoint_is_the_highest_whole_one(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.newest_checkpoint() is None
    make_checkpoint(run, 4, '{"global_step": 4}')
    whole = make_checkpoint(run, 10, '{"global_step": 10}')
    assert run.newest_checkpoint() == whole


@pytest.mark.parametrize("state", [None, "", '{"global_step": 1', '{"global_step": 8}', "{}"])
def test_newest_checkpoint_ignores_truncated_ones(tmp_path: Path, state: str | None) -> None:
    run = RunDirectory(tmp_path)
    whole = make_checkpoint(run, 8, '{"global_step": 8}')
    make_checkpoint(run, 12, state)
    assert run.newest_checkpoint() == whole


def test_rewind_drops_later_lines_and_checkpoints(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    lines = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1e-17}, {"step": 2, "validation_loss": None}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics_file.write_text(text + '{"step": 3, "loss": 2.0}\n{"step": 4, "lo')
    run.timings_file.write_text('{"step": 2, "step_seconds": 0.5}\n{"step": 3, "step_seconds": 0.5}\n')
    kept, dropped = make_checkpoint(run, 2, '{"global_step": 2}'), make_checkpoint(run, 4)
    run.rewind(2)
    assert run.metrics_file.read_text() == text
    assert run.timings_file.read_text() == '{"step": 2, "step_seconds": 0.5}\n'
    assert kept.is_dir()
    assert not dropped.exists()


def test_rewind_to_the_start_leaves_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.metrics_file.write_text('{"step": 1}\n')
    make_checkpoint(run, 2, '{"global_step": 2}')
    run.rewind(0)
    assert run.metrics() == []
    assert run.newest_checkpoint() is None


def test_line_log_writes_null_for_what_is_not_finite(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "log.jsonl")
    log.write({"step": 1, "loss": math.nan, "kappa": math.inf, "drift": -math.inf, "lr": 0.5, "name": "x"})
    text = (tmp_path / "log.jsonl").read_text()
    log.close()
    assert text == (
        '{"step": 1, "loss": null, "kappa": null, "drift": null, "lr": 0.5, "name": "x", '
        '"not_finite": {"loss": "nan", "kappa": "inf", "drift": "-inf"}}\n'
    )


def test_line_log_appends(tmp_path: Path) -> None:
    for step in (1, 2):
        log = LineLog(tmp_path / "metrics.jsonl")
        log.write({"step": step})
        log.close()
    assert RunDirectory(tmp_path).metrics() == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("cut", ['{"step": 2, "loss": 0.', '{"step": 2, "name": "gr\\u00', "{", "\0\0"])
def test_metrics_tolerate_a_last_line_cut_short(tmp_path: Path, cut: str) -> None:
    run = RunDirectory(tmp_path)
    run.metrics_file.write_text('{"step": 1}\n' + cut)
    assert run.metrics() == [{"step": 1}]


def test_metrics_of_a_run_that_has_none(tmp_path: Path) -> None:
    assert RunDirectory(tmp_path).metrics() == []
    assert RunDirectory(tmp_path).scores() is None


def test_a_recipe_in_place_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("dots.yaml")
    file.write_text("model: {path: a/b}\ntasks: [{name: dots, reader: easy_vqa}]\n")
    with pytest.raises(RunError, match=r"^dots\.yaml is a recipe; equipoise train dots\.yaml makes its run, r"):
        RunDirectory.open(file)
    Path("runs/dots").mkdir(parents=True)
    Path("runs/dots/recipe.yaml").write_text(file.read_text())
    with pytest.raises(RunError, match=r"^dots\.yaml is a recipe; its run is in runs/dots$"):
        RunDirectory.open(file)
    file.write_text("no: recipe")
    with pytest.raises(RunError, match=r"^dots\.yaml is not a run directory: it has no recipe\.yaml$"):
        RunDirectory.open(file)


def test_open_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run directory: it has no recipe\.yaml"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ('{"step": 1}\n{"step": 2}\n{"step": 2, "validation_loss": 1.0}\n', 2),
        ('{"step": 1}\n{"step": 2, "lo', 1),
        ('{"step": 1}\n[2]\n{"loss": 1.0}\n{"step": "3"}\n', 1),
        ('{"step": 1, "notes": "' + "x" * 70_000 + '"}\n{"step": 2}\n', 2),  # the end alone is read
        ("", None),
    ],
)
def test_last_step_is_that_of_the_newest_whole_line(tmp_path: Path, text: str, step: int | None) -> None:
    run = RunDirectory(tmp_path)
    assert run.last_step() is None
    run.metrics_file.write_text(text)
    assert run.last_step() == step


def test_rewinding_holds_one_line_at_a_time(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    line = json.dumps({"step": 1, **{f"value/{number}": 0.1 for number in range(100)}}) + "\n"
    run.metrics_file.write_text(3000 * line)
    tracemalloc.start()
    run.rewind(1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert run.metrics_file.read_text() == 3000 * line
    assert peak < len(line) * 300
