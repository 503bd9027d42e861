"""`equipoise train` started twice at once, as a launcher does: one run, one voice, and one end for all."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise import cli
from equipoise.training.run_directory import RunDirectory
from training import _checkpoint as tiny
from training._compare import same, weights

Group = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe(checkpoint: Path, dataset: Path, tmp_path: Path) -> Callable[..., Path]:
    """A recipe file; a step of two processes is one of one with twice the batch size."""

    def write(name: str, processes: int = 2, data: Path = dataset, **train: Any) -> Path:
        settings = tiny.settings(
            checkpoint, data, {"schedule": "commit", "samples": 8}, dropout=0.0,
            **{"batch_size": 4 // processes, "max_steps": 5, "save_steps": 2, "eval_steps": 2, **train},
        )  # fmt: skip
        settings["balance"]["tasks"] = {"weighter": "dwa"}  # a loss of ours, and so token-exact over processes
        return tiny.write_recipe(tmp_path / f"{name}.yaml", settings)

    return write


@pytest.fixture
def train(command: Group) -> Group:
    def run(recipe: Path, out: Path, *options: str, processes: int = 2, **more: Any) -> dict[str, Any]:
        return command("train", recipe, "--out", out, *options, processes=processes, **more)

    return run


def test_two_processes_make_the_run_of_one(recipe, train: Group, tmp_path: Path):
    runs = {count: RunDirectory(tmp_path / f"of {count}") for count in (1, 2)}
    for count, run in runs.items():
        done = train(recipe(f"of {count}", count), run.path, processes=count)
        assert not any(done["statuses"]), "\n".join(done["printed"])
        assert done["printed"][0].count("tuned model") == 1
        for text in done["printed"][1:]:  # the others are silent
            assert not any(words in text for words in ("tuned model", "from step", "trainable"))
    one, two = runs[1].metrics(), runs[2].metrics()
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for name in ("loss", "validation_loss", "kappa", "lr/llm"):
        pairs = [(a[name], b[name]) for a, b in zip(one, two, strict=True) if name in a]
        assert pairs
        assert all(a == pytest.approx(b, rel=1e-3) for a, b in pairs), (name, pairs)
    assert json.loads((two_path := runs[2].path / "environment.json").read_text())["processes"] == 2, two_path
    assert len(list((runs[2].checkpoints / "checkpoint-4").glob("rng_state_*.pth"))) == 2


def test_a_process_that_is_killed_ends_the_other_and_the_run_goes_on_bit_for_bit(recipe, train: Group, tmp_path: Path):
    file = recipe("killed")
    whole, killed = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "killed")
    assert not any(train(file, whole.path)["statuses"])
    done = train(file, killed.path, dies=[1, 3])
    assert done["statuses"] == [2, -signal.SIGKILL]
    assert done["printed"][0].splitlines()[-1] == (
        "equipoise: another process has ended; --resume goes on from the newest checkpoint"
    )
    assert "Traceback" not in done["printed"][0]

    alone = train(file, killed.path, "--resume", processes=1)
    assert alone["statuses"] == [2]
    assert "begun by 2 processes and found 1" in alone["printed"][0]

    done = train(file, killed.path, "--resume")
    assert not any(done["statuses"]), "\n".join(done["printed"])
    assert killed.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert same(weights(killed.model), weights(whole.model))


@pytest.mark.slow
def test_one_process_that_is_asked_to_stop_stops_all_after_the_same_step(recipe, train: Group, tmp_path: Path):
    file = recipe("stopped")
    whole, stopped = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "stopped")
    assert not any(train(file, whole.path)["statuses"])
    done = train(file, stopped.path, dies=[1, 3, signal.SIGTERM])
    assert done["statuses"] == [0, 0], "\n".join(done["printed"])
    said = f"equipoise: stopped after step 3 of 5, of which there is a checkpoint in {stopped.path}; it goes on with: "
    assert said in done["printed"][0]
    assert "stopped" not in done["printed"][1]
    assert json.loads(stopped.stopped_file.read_text(encoding="utf-8"))["step"] == 3
    sums = json.loads((stopped.checkpoints / "checkpoint-3" / "checksums.json").read_text(encoding="utf-8"))["files"]
    assert {"rng_state_0.pth", "rng_state_1.pth"} < sums.keys()
    assert not any(train(file, stopped.path, "--resume")["statuses"])
    assert stopped.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert same(weights(stopped.model), weights(whole.model))


def test_a_mistake_ends_all_processes_and_is_said_once(recipe, train: Group, tmp_path: Path, dataset: Path):
    """The first process alone finds it (its folder), all do (the recipe), one does while it trains (a picture)."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    other = tmp_path / "data"
    shutil.copytree(dataset, other)
    broken = other / "images" / "train-7.png"
    broken.write_bytes(b"no picture")
    cases = [
        (recipe("folder"), tmp_path / "full", "is not empty and holds no run"),
        (recipe("model", learning_rate={"llm": 0.1}), tmp_path / "model", "module projector is missing"),
        (recipe("image", data=other), tmp_path / "image", str(broken)),
    ]
    for file, folder, expected in cases:
        done = train(file, folder)
        assert set(done["statuses"]) <= {2, -signal.SIGTERM}
        lines = [line for text in done["printed"] for line in text.splitlines() if line.startswith("equipoise: ")]
        said = [line for line in lines if expected in line]
        assert len(said) == 1, done
        assert not any("Traceback" in text for text in done["printed"]), done
        assert not (folder / "done.json").exists()


@pytest.mark.parametrize("name", ["balance", "compare", "demo"])
def test_what_starts_processes_itself_takes_no_launcher(name, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump({}))
    monkeypatch.setattr("sys.argv", ["equipoise", name, *(["recipe.yaml"] if name != "demo" else [])])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == (
        f"equipoise: found 2 processes; equipoise {name} takes no launcher (torchrun ...): start it by itself\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], ["train.batch_size=many"]], ids=["trains", "a mistake"])
def test_torchrun_starts_it(recipe, tmp_path: Path, overrides: list[str]):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "equipoise", "train", str(recipe("real")), *overrides, "--out", str(tmp_path / "run")]
    began = time.monotonic()
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=240)
    said = [line for line in done.stderr.splitlines() if line.startswith("equipoise: ")]
    if not overrides:
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("tuned model") == 1
        assert "reducer.cpp" not in done.stderr
        assert (tmp_path / "run" / "done.json").is_file()
    else:
        assert done.returncode != 0
        assert len(said) == 1
        assert "train.batch_size: found 'many'" in said[0]
        assert time.monotonic() - began < 50  # nobody waits for the second process, which waits to be ended
