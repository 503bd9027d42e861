"""A run directory: everything one run leaves behind, readable while it runs and after it died.

| file | what |
| --- | --- |
| `recipe.yaml` | the resolved recipe |
| `environment.json` | versions and device of the process that last wrote here |
| `modules.json` | the module table printed before the first step |
| `metrics.jsonl` | the truth: a line a step, flushed; nothing in it depends on the clock |
| `timings.jsonl` | wall times, a line a step |
| `checkpoints/` | transformers' checkpoints, each with the balance state |
| `model/` | the tuned model and its processor; with LoRA, the adapter and what was trained in full |
| `merged/` | the whole tuned model without adapters, where the recipe asks for it |
| `predictions/TASK.jsonl`, `scores.json` | what `equipoise evaluate` found |
| `submissions/TASK.json` | predictions for a test set whose answers are secret, as its owners' server takes them |
| `data.json` | by task and part: samples, and those left out because they cannot be read |
| `report.html` | what `equipoise report` drew |
| `done.json` | written last: training finished |
| `stopped.json` | training was stopped (SIGTERM) after a step, and has a checkpoint of it; gone once it goes on |
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from equipoise.errors import RecipeError, RunError
from equipoise.recipe import Recipe
from equipoise.recipe_reading import load_recipe
from equipoise.training.checkpoints import STATE, flaw_of


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes a path's place once all is written and synced; if anything fails, what is there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write a text, or parts of one, whole or not at all."""
    with replacing(path) as file:
        file.writelines(part.encode() for part in ([text] if isinstance(text, str) else text))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; numbers that are not finite, which JSON has not, as null."""
    text = json.dumps(_with_nulls(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    return [_with_nulls(item) for item in value] if isinstance(value, (list, tuple)) else value


class RunDirectory:
    """Paths and files of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.data_file = path / "data.json"
        self.metrics_file = path / "metrics.jsonl"
        self.timings_file = path / "timings.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.merged = path / "merged"
        self.predictions = path / "predictions"
        self.submissions = path / "submissions"
        self.scores_file = path / "scores.json"
        self.done_file = path / "done.json"
        self.stopped_file = path / "stopped.json"
        self.report_file = path / "report.html"

    @property
    def done(self) -> bool:
        """Whether training finished."""
        return self.done_file.is_file()

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            RunError: there is no run there.
        """
        run = cls(path)
        if not run.recipe_file.is_file():
            raise RunError(_recipe_for_run(path) or f"{path} is not a run directory: it has no recipe.yaml")
        return run

    def recipe(self) -> Recipe:
        """The resolved recipe the run was started with."""
        return load_recipe(self.recipe_file)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, in order; a last line cut short by a kill is left out."""
        return _read_lines(self.metrics_file)

    def timings(self) -> list[dict[str, Any]]:
        """The lines of `timings.jsonl`, likewise."""
        return _read_lines(self.timings_file)

    def last_step(self) -> int | None:
        """The step of the newest whole line of `metrics.jsonl`, if any; only the file's end is read."""
        try:
            with self.metrics_file.open("rb") as log:
                log.seek(0, 2)
                log.seek(max(0, log.tell() - 65536))
                lines = log.read().splitlines()
        except OSError:
            return None
        for line in reversed(lines):
            try:
                step = json.loads(line)["step"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # half written, or not ours
            if isinstance(step, int):
                return step
        return None

    def scores(self) -> dict[str, Any] | None:
        """The content of `scores.json`, None before an evaluation."""
        return json.loads(self.scores_file.read_text(encoding="utf-8")) if self.scores_file.is_file() else None

    def newest_checkpoint(self, notify: Callable[[str], None] = lambda _: None) -> Path | None:
        """The newest checkpoint that is whole.

        Args:
            notify: told of each newer one, and why it is passed over.
        """
        numbered = [(self.step_of(p), p) for p in self.checkpoints.glob("checkpoint-*") if p.is_dir()]
        for step, folder in sorted(numbered, reverse=True):
            flaw = flaw_of(folder, step)
            if flaw is None:
                return folder
            notify(f"{folder} is passed over: {flaw}")
        return None

    @staticmethod
    def step_of(checkpoint: Path) -> int:
        """The step after which a checkpoint was written."""
        return int(checkpoint.name.rpartition("-")[2])

    @staticmethod
    def is_last(checkpoint: Path) -> bool:
        """Whether no step of the run follows a whole checkpoint."""
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        return state["global_step"] >= state["max_steps"]

    def sweep(self) -> None:
        """Delete the temporary files that a killed process left beside what it was about to replace."""
        for leftover in [*self.path.glob(".*-*"), *self.predictions.glob(".*-*")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def rewind(self, step: int) -> None:
        """Drop what came after `step`: later log lines, checkpoints that are not whole, that the run was stopped."""
        for file in (self.metrics_file, self.timings_file):
            write_atomically(file, _lines_until(file, step))
        for folder in self.checkpoints.glob("checkpoint-*"):
            if self.step_of(folder) > step:
                shutil.rmtree(folder)
        self.stopped_file.unlink(missing_ok=True)


def _recipe_for_run(path: Path) -> str | None:
    """What to say to somebody who named the recipe and meant its run."""
    try:
        load_recipe(path)
    except RecipeError:
        return None
    run = Path("runs") / path.stem
    if (run / "recipe.yaml").is_file():
        return f"{path} is a recipe; its run is in {run}"
    return f"{path} is a recipe; equipoise train {path} makes its run, {run}"


class LineLog:
    """Appends JSON lines to a file, each flushed whole."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. Numbers that are not finite are written as null, and which they were under `not_finite`."""
        odd = {key: value for key, value in line.items() if isinstance(value, float) and not math.isfinite(value)}
        plain = {**line, **dict.fromkeys(odd)}
        if odd:
            plain["not_finite"] = {key: str(value) for key, value in odd.items()}
        self._file.write(json.dumps(plain) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lines_until(path: Path, step: int) -> Iterator[str]:
    """The log lines of no later step, one after the other: of a long run they are more than the memory holds."""
    if path.is_file():
        with path.open(encoding="utf-8") as log:
            for text in log:
                try:
                    line = json.loads(text)
                except ValueError:
                    return
                if line["step"] <= step:
                    yield text.rstrip("\n") + "\n"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines
