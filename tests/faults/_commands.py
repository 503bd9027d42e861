"""The commands that the harness disturbs, on models and data that take a second: how each is started and gone on with,
what it leaves, and in which moment of its life it was cut off.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from balancing import _mixture as mixture
from comparing import _tiny
from training import _checkpoint as tiny

#: What depends on the clock, or is there for processes that go on.
APART = ("timings.jsonl", "costs.json", "seconds-*.json", ".report.html-*")
APART_FOLDERS = {"checkpoints", ".locks"}
#: What also shows times: it counts whether it is there.
SHOWN = ("report.html", "comparison.md", "comparison.tex")
CLOCK = "step time"


class Start(Protocol):
    """Runs a command to its end, as `tests/conftest.py` has it."""

    def __call__(self, *arguments: Any, **options: Any) -> dict[str, Any]: ...


@dataclass
class Command:
    """One command, and a run of it that nothing disturbed.

    Attributes:
        name: of the command.
        before: a folder that the command begins with; None where it makes its own.
        arguments: all but the folder and what goes on.
        resume: what goes on with it, beside the same arguments.
        undisturbed: what it leaves, by path.
        life: seconds from its beginning to its end.
    """

    name: str
    before: Path | None
    arguments: tuple[str, ...]
    resume: tuple[str, ...] = ()
    undisturbed: dict[str, bytes] | None = None
    life: float = 0.0

    def line(self, folder: Path, resume: bool = False) -> tuple[str, ...]:
        """Its arguments on a folder."""
        if self.before is not None:
            return (self.name, str(folder), *self.arguments)
        return (self.name, *self.arguments, "--out", str(folder), *(self.resume if resume else ()))

    def fresh(self, folder: Path) -> Path:
        """Where it has not been yet."""
        if self.before is not None:
            shutil.copytree(self.before, folder)
        return folder

    def measure(self, start: Start, folder: Path, times: int = 1) -> None:
        """Run it undisturbed."""
        for number in range(times):
            place = self.fresh(folder / f"{self.name}-undisturbed-{number}")
            done = start(*self.line(place))
            assert done["status"] == 0, done["printed"]
            found = results(place)
            assert self.undisturbed in (None, found), f"{self.name} does not repeat: {differences(self, place)}"
            self.undisturbed, self.life = found, done["seconds"]


def results(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but `APART`, without what depends on the clock; pages count as there or not."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or APART_FOLDERS.intersection(name.parts) or any(map(name.match, APART)):
            continue
        content = b"" if name.name in SHOWN else path.read_bytes()
        found[name.as_posix()] = _without_times(content) if name.name.startswith("comparison.") else content
    return found


def differences(command: Command, folder: Path) -> list[str]:
    """The files that are not as undisturbed."""
    expected, found = command.undisturbed or {}, results(folder)
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def _without_times(content: bytes) -> bytes:
    if not content.startswith(b"{"):
        return b"\n".join(line for line in content.split(b"\n") if CLOCK.encode() not in line)
    plain = json.loads(content)
    plain["runs"] = [{**one, "step_time": None} for one in plain["runs"]]
    plain["training"] = [cell for cell in plain["training"] if cell["quantity"] != CLOCK]
    return json.dumps(plain).encode()


def moment(folder: Path, since: float) -> str:
    """What a process that began at a time (of the file system's clock) was at when it was cut off, by its last file."""
    files = [
        (path.stat().st_mtime, path) for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts
    ]
    newest, path = max(files, default=(0.0, folder))
    if newest < since:
        return "loading"
    name = path.relative_to(folder)
    if "checkpoints" in name.parts:
        checkpoint = folder.joinpath(*name.parts[: name.parts.index("checkpoints") + 2])
        sums = checkpoint / "checksums.json"
        sealed = sums.is_file() and json.loads(sums.read_text(encoding="utf-8"))["files"] is not None
        return "stepping" if sealed else "checkpointing"
    if ".unfinished" in name.parts:
        return "answering"
    if path.name in ("metrics.jsonl", "timings.jsonl"):
        return "stepping"
    if path.name in ("recipe.yaml", "environment.json", "data.json", "modules.json"):
        return "loading"
    return "saving"


def steps_below(folder: Path) -> int:
    """How many steps the runs in a folder have logged."""
    return sum(file.read_bytes().count(b"\n") for file in folder.rglob("metrics.jsonl"))


MOMENTS = ("loading", "stepping", "checkpointing", "answering", "saving")


def commands(
    folder: Path,
    start: Start,
    names: tuple[str, ...] = ("train", "evaluate", "balance", "compare"),
    times: int = 1,
) -> list[Command]:
    """Make them, and run each undisturbed."""
    checkpoint = tiny.make_checkpoint(folder / "checkpoint")
    data = folder / "data"
    for name in mixture.TASKS:
        mixture.make_task(data / name, name)
    made: dict[str, Command] = {}
    train = _recipe(folder / "train.yaml", train_recipe(checkpoint, data))
    made["train"] = Command("train", None, (train,), ("--resume",))
    made["train"].measure(start, folder, times)
    made["evaluate"] = Command("evaluate", folder / "train-undisturbed-0", ("--batch-size", "2"))
    balance, compare = mixture.settings(checkpoint, data), _tiny.settings(checkpoint, data)
    balance["train"] |= {"epochs": 1, "save_steps": 2}
    compare["train"] |= {"max_steps": 5}
    for task in (*balance["tasks"], *compare["tasks"]):
        task.update({"max_validation": 2, "max_test": 2} if "metric" in task else {})
    found = (_recipe(folder / "balance.yaml", balance), "--on-degenerate", "zero")
    made["balance"] = Command("balance", None, found)
    methods = (_recipe(folder / "compare.yaml", compare), "--methods", _tiny.METHODS, "--seeds", "0")
    made["compare"] = Command("compare", None, methods)
    for name in names:
        if name != "train":
            made[name].measure(start, folder, times)
    return [made[name] for name in names]


def train_recipe(checkpoint: Path, data: Path) -> dict[str, Any]:
    """Everything that a run can leave: kappa, tasks' weights, validation losses, checkpoints, a merged model."""
    content = mixture.settings(checkpoint, data)
    content["model"]["lora"] |= {"dropout": 0.1, "merge": True}
    content["balance"] = {"modules": {"schedule": "commit", "samples": 2, "window": 3}, "tasks": {"weighter": "dwa"}}
    content["train"] |= {"max_steps": 10, "save_steps": 3, "eval_steps": 4, "learning_rate": 0.003, "seed": 3}
    return content


def _recipe(file: Path, content: dict[str, Any]) -> str:
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
