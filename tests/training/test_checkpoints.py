"""Which checkpoints are whole: by what was noted of their files, whatever befell these since."""

from __future__ import annotations

import errno
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.recipe import Recipe
from equipoise.training import durable
from equipoise.training.checkpoints import SUMS, flaw_of, sums_of
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from training._compare import same, weights

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Three files, one of them in a folder, and their sums."""
    folder = tmp_path / "checkpoints" / "checkpoint-4"
    (folder / "global_step4").mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    (folder / "optimizer.pt").write_bytes(bytes(range(200)))
    (folder / "global_step4" / "shard.pt").write_bytes(b"shard")
    (folder / SUMS).write_text(json.dumps({"files": sums_of(folder)}))
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "harm", "flaw"),
    [
        ("optimizer.pt", flip, "its optimizer.pt is not what was written there (XXH3)"),
        ("optimizer.pt", lambda file: file.write_bytes(bytes(range(150))), "its optimizer.pt has 150 bytes of 200"),
        ("optimizer.pt", Path.unlink, "its optimizer.pt is missing"),
        ("global_step4/shard.pt", Path.unlink, "its global_step4/shard.pt is missing"),
        ("trainer_state.json", Path.unlink, "its trainer_state.json is missing"),
        ("trainer_state.json", lambda file: file.write_text('{"global_step": 3}'), "its trainer_state.json is not of"),
        ("trainer_state.json", lambda file: file.write_text("[]"), "its trainer_state.json or checksums.json is"),
        ("trainer_state.json", lambda file: file.write_bytes(b"\xff{"), "its trainer_state.json or checksums.json is"),
        (SUMS, lambda file: file.write_text('{"files": null}'), "it was not written to its end"),
        (SUMS, lambda file: file.write_text("[]"), "its checksums.json is damaged"),
        (SUMS, lambda file: file.write_bytes(b"\x00"), "its checksums.json is damaged"),
        (SUMS, lambda file: file.write_text('{"files": {"optimizer.pt": 3}}'), "its trainer_state.json or checksums"),
        (SUMS, lambda file: file.write_text('{"files": [3]}'), "its trainer_state.json or checksums.json is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_one_says_what_is_wrong(damaged: Path, name: str, harm: Callable[[Path], object], flaw: str) -> None:
    assert flaw_of(damaged, 4) is None
    harm(damaged / name)
    assert (flaw_of(damaged, 4) or "").startswith(flaw)


def test_the_one_before_is_taken_and_why_is_said(damaged: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    newer = damaged.with_name("checkpoint-12")
    shutil.copytree(damaged, newer)
    (newer / "trainer_state.json").write_text('{"global_step": 12}')
    (newer / SUMS).write_text(json.dumps({"files": sums_of(newer)}))
    assert run.newest_checkpoint() == newer
    flip(newer / "optimizer.pt")
    said: list[str] = []
    assert run.newest_checkpoint(said.append) == damaged
    assert said == [f"{newer} is passed over: its optimizer.pt is not what was written there (XXH3)"]


def test_one_of_an_older_version_has_no_sums(damaged: Path) -> None:
    (damaged / SUMS).unlink()
    flip(damaged / "optimizer.pt")
    assert flaw_of(damaged, 4) is None


def test_a_file_that_cannot_be_read_now_is_not_taken_for_damaged(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("hashlib.file_digest", fail)
    with pytest.raises(OSError, match="Input/output error"):
        flaw_of(damaged, 4)


def test_a_run_seals_its_checkpoints_and_deletes_older_ones_only_then(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe({"schedule": "constant"}, max_steps=4, save_steps=2, save_total_limit=1)
    undisturbed = train(recipe, tmp_path / "undisturbed", Console(file=io.StringIO()))
    assert [path.name for path in undisturbed.checkpoints.iterdir()] == ["checkpoint-4"]
    newest = undisturbed.newest_checkpoint()
    assert newest is not None
    written = json.loads((newest / SUMS).read_text(encoding="utf-8"))["files"]
    assert written == sums_of(newest)
    assert {"adapter_model.safetensors", "optimizer.pt", "balance_state.pt", "trainer_state.json"} < written.keys()

    sealed = []

    def stops(checkpoint: Path) -> dict[str, object]:
        sealed.append(sorted(path.name for path in checkpoint.parent.iterdir()))
        if len(sealed) == 2:
            raise KeyboardInterrupt
        return sums_of(checkpoint)

    monkeypatch.setattr(durable, "sums_of", stops)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run.path, Console(file=io.StringIO()))
    assert sealed == [["checkpoint-2"], ["checkpoint-2", "checkpoint-4"]]
    said: list[str] = []
    assert run.newest_checkpoint(said.append) == run.checkpoints / "checkpoint-2"
    assert said == [f"{run.checkpoints / 'checkpoint-4'} is passed over: it was not written to its end"]
    monkeypatch.undo()
    train(recipe, run.path, Console(file=io.StringIO()), resume=True)
    assert run.metrics_file.read_bytes() == undisturbed.metrics_file.read_bytes()
    assert same(weights(run.model), weights(undisturbed.model))
