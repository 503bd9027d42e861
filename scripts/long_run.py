"""Does it hold over 20,000 steps? Memory, logs, step times and kappa of every schedule (docs/reliability.md).

    python scripts/long_run.py run OUT                            # every schedule, one after the other; takes hours
    python scripts/long_run.py run OUT --schedules commit,servo   # some of them
    python scripts/long_run.py summary OUT                        # what came out, in Markdown
    python scripts/long_run.py figure OUT docs/long-run.png       # and as a figure (needs Chromium)

Each run is an `equipoise train` in a process of its own, whose resident memory is read from outside once a second. The
model is a LLaVA of the real classes with some thousand weights that learn; the data are two tasks whose labels are
partly noise, so that losses do not go to zero. The same command goes on where it was stopped: a finished run is left
as it is, one that was broken off continues from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from figures import photograph
from long_run_results import NAMES, figure, load, summary
from PIL import Image

from equipoise.bench.synthetic import Shape, write_checkpoint
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe
from equipoise.training.run_directory import LineLog, RunDirectory, write_atomically

STEPS = 20_000
SHAPE = Shape(vocabulary=260, hidden=16, inner=32, layers=1, tower=16, tower_layers=1, side=16, patch=8, spread=1.0)

# ---------------------------------------------------------------------- the model and its tasks

KINDS = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi")  # what an image may show, by its hue
SHADES = 8  # images of a kind
SAMPLES = 1024  # of a task
NOISE = 0.25  # share of the labels that say any kind


def make_stage(folder: Path) -> None:
    """Write model and data below a folder, whole or not at all; nothing where they are there already.

    Task `kind` asks what an image shows. Task `shift` has a number in its question and asks for the kind so many places
    further on, which needs image and text together. The same question about the same image comes with several answers,
    so that noise cannot be learnt by heart.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=folder.parent) as scratch:
        stage = Path(scratch) / folder.name
        write_checkpoint(stage / "model", SHAPE)
        for task in ("kind", "shift"):
            draw = random.Random(task)
            (stage / task).mkdir()
            rows = [_row(task, number, draw, stage / task) for number in range(SAMPLES)]
            (stage / task / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        shutil.move(stage, folder)


def _row(task: str, number: int, draw: random.Random, folder: Path) -> dict[str, Any]:
    kind, shade = number % len(KINDS), number // len(KINDS) % SHADES
    image = f"{kind}-{shade}.png"
    if not (folder / image).exists():
        side = SHAPE.side
        picture = Image.new("HSV", (side, side), (32 * kind + 2 * shade, 200, 120 + 15 * shade)).convert("RGB")
        picture.save(folder / image)
    shift = draw.randrange(4) if task == "shift" else 0
    answer = draw.choice(KINDS) if draw.random() < NOISE else KINDS[(kind + shift) % len(KINDS)]
    return {"id": number, "image": image, "prompt": f"{shift}?" if task == "shift" else "?", "answer": answer}


# ---------------------------------------------------------------------- the runs


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        modules: what its `balance.modules` sets; all else is the default.
        weighter: of the two tasks.
    """

    modules: Mapping[str, Any]
    weighter: str = "dwa"

    def recipe(self, stage: Path, steps: int) -> Recipe:
        tasks = [
            {"name": name, "reader": "jsonl", "path": str(stage / name), "validation": None, "test": None}
            for name in ("kind", "shift")
        ]
        train = {
            "max_steps": steps, "batch_size": 4, "learning_rate": 1e-3, "lr_scheduler": "constant_with_warmup",
            "warmup": 0.01, "threads": 1,
        }  # fmt: skip
        content = {
            "model": {"path": str(stage / "model"), "lora": {"rank": 4, "alpha": 8}},
            "tasks": tasks,
            "balance": {"modules": dict(self.modules), "tasks": {"weighter": self.weighter}},
            "train": train,
        }
        return parse_recipe(content, "the long run")


PAPER = {"estimator": "exact", "average": "mean", "min_factor": 0, "regulariser_cap": None}
#: By name, the most telling first: every schedule; then two of them otherwise measured or acted on.
PLANS: dict[str, Plan] = {
    "commit": Plan({"schedule": "commit"}),
    "commit-clr": Plan({"schedule": "commit-clr"}),
    "servo": Plan({"schedule": "commit-clr", "controller": "servo"}),
    "constant": Plan({"schedule": "constant"}),
    "paper": Plan({"schedule": "commit", **PAPER}),
    "encoder-lr-up": Plan({"schedule": "encoder-lr-up"}, "tla"),
    "llm-lr-up": Plan({"schedule": "llm-lr-up"}),
    "feature-cd": Plan({"schedule": "feature-cd"}, "igbv1"),
    "language-cd": Plan({"schedule": "language-cd"}, "rlw"),
    "sampled": Plan({"schedule": "commit-clr", "estimator": "sampled"}),
}
assert tuple(PLANS) == NAMES


def run(out: Path, names: Sequence[str], steps: int) -> None:
    """Make the runs that are not finished, one after the other."""
    stage = out.resolve() / "stage"
    make_stage(stage)
    for name in names:
        directory = RunDirectory(out / "runs" / name)
        if directory.done:
            print(f"{name}: is there", flush=True)
            continue
        recipe = out / f"{name}.yaml"
        write_atomically(recipe, PLANS[name].recipe(stage, steps).to_yaml())
        began = time.monotonic()
        status = _train(recipe, directory, out, name)
        if status != 0:
            lines = (out / f"{name}.log").read_text(encoding="utf-8").splitlines()
            sys.exit(f"{name}: ended with status {status} at step {directory.last_step()}: {' '.join(lines[-1:])}")
        print(f"{name}: {directory.last_step():,} steps, {time.monotonic() - began:.0f} s", flush=True)


def _train(recipe: Path, directory: RunDirectory, out: Path, name: str) -> int:
    """Train in a process of its own and write down what it holds; returns its status."""
    command = [sys.executable, "-m", "equipoise", "train", str(recipe), "--out", str(directory.path), "--resume"]
    # One thread each way: a run beside other work would wait for the tokenizer's pool otherwise.
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, "EQUIPOISE_INDEX": str(out.resolve() / "index"), **quiet}
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the training process ends as well
    with (out / f"{name}.log").open("a", encoding="utf-8") as printed:
        process = subprocess.Popen(command, env=environment, stdout=printed, stderr=subprocess.STDOUT)
        try:
            watch(process, directory, out / f"{name}.memory.jsonl")
            return process.wait()
        finally:
            process.terminate()
            signal.signal(signal.SIGTERM, before)


def watch(process: subprocess.Popen, directory: RunDirectory, file: Path, pause: float = 1.0) -> None:
    """Until the process ends, note its newest step, resident bytes and open files; each process is another part."""
    log, seen, before = LineLog(file), psutil.Process(process.pid), directory.last_step()
    try:
        while process.poll() is None:
            time.sleep(pause)
            step = directory.last_step()
            try:
                line = {"part": process.pid, "step": step, "rss": seen.memory_info().rss, "files": seen.num_fds()}
            except psutil.Error:  # it has just ended
                return
            if step != before and line["rss"]:  # not while it loads; and one that has just ended holds nothing
                log.write(line)
    finally:
        log.close()


# ---------------------------------------------------------------------- command line


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("run", help="make the runs, those that OUT lacks")
    making.add_argument("out", type=Path)
    making.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps of each run ({STEPS:,})")
    making.add_argument("--schedules", default=",".join(PLANS), help=f"by commas, of {', '.join(PLANS)}; all of them")
    for name, text in (("summary", "what came out, as Markdown"), ("figure", "what came out, as PNG")):
        showing = commands.add_parser(name, help=text)
        showing.add_argument("out", type=Path, help="of `run`")
        if name == "figure":
            showing.add_argument("target", type=Path, help="the file")
    return parser.parse_args(arguments)


def main(given: Sequence[str]) -> None:
    arguments = parse(given)
    if arguments.command == "run":
        names = arguments.schedules.split(",")
        if unknown := [name for name in names if name not in PLANS]:
            sys.exit(f"--schedules: found {', '.join(unknown)}; allowed: {', '.join(PLANS)}")
        run(arguments.out, names, arguments.steps)
        return
    runs = load(arguments.out)
    if not runs:
        sys.exit(f"{arguments.out}: no runs there; `run` makes them")
    if arguments.command == "summary":
        print(summary(runs))
    else:
        drawn = figure(runs)
        photograph(drawn, arguments.target, 1400, drawn.layout.height)


if __name__ == "__main__":
    main(sys.argv[1:])
