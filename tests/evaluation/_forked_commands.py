"""Runs `equipoise` commands in processes of their own, each a fork of this one, which has imported everything already.

usage: _forked_commands.py, which reads a line of JSON from its input for each command and answers with one, or
       _forked_commands.py JSON, which is that one command (for torchrun).

A command has `arguments` and may have
- `file`: a Python file that is run with the arguments in place of equipoise,
- `folder`: where it is at work,
- `log`: a file that gets a line for each batch that the model works on: ["answers", how many] or ["loss", how many],
- `kill`: [event, part of a path, n]: SIGKILL at the n-th such file event, before it happens (Python's audit events;
  "" is any of `CHANGES`),
- `processes`: how many processes share it (see `processes/_forked_group.py`),
- `signal`: [seconds, number]: a signal from outside, once it has had so much of the processor's time,
- `signal_after`: [folder, steps, number]: likewise, once runs below the folder have logged so many steps; of 0, once
  one has a log,
- `limit`: SIGXFSZ where a file grows beyond so many bytes, in the middle of the write,
- `full`: the error of a full disk where a file grows beyond so many bytes,
- `user`: whose rights it has, by number,
- `environment`: variables over this process's.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import runpy
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from equipoise import cli
from equipoise.evaluation import evaluate
from equipoise.evaluation.generate import TransformersEngine

#: Files' own events, at which something is about to be written, made, renamed or removed.
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def record(log: str) -> None:
    """Note each batch that the model works on."""

    def note(kind: str, count: int) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps([kind, count]) + "\n")

    answer, batch_loss = TransformersEngine.answer, evaluate.batch_loss

    def answered(self: TransformersEngine, samples: Any, *arguments: Any) -> list[str]:
        note("answers", len(samples))
        return answer(self, samples, *arguments)

    def lost(model: Any, collator: Any, samples: Any) -> tuple[float, int]:
        note("loss", len(samples))
        return batch_loss(model, collator, samples)

    TransformersEngine.answer = answered  # type: ignore[method-assign]
    evaluate.batch_loss = lost  # type: ignore[attr-defined]


def die_at(event: str, part: str, count: int) -> None:
    """Kill this process before the `count`-th event of that name on a path that contains `part`."""
    seen = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name not in ((event,) if event else CHANGES):
            return
        reads = name == "open" and isinstance(arguments[1], str) and "r" in arguments[1] and "+" not in arguments[1]
        if not reads and any(isinstance(a, str | os.PathLike) and part in os.fspath(a) for a in arguments):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def execute(command: dict[str, Any]) -> None:
    """Be `equipoise ARGUMENTS...`, or another script."""
    os.environ.update(command.get("environment") or {})
    if command.get("folder"):
        os.chdir(command["folder"])
    if command.get("log"):
        record(command["log"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if command.get("limit"):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    for limit in filter(None, (command.get("limit"), command.get("full"))):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if command.get("user"):
        os.setgroups([])
        os.setgid(command["user"])
        os.setuid(command["user"])
    if command.get("kill"):
        die_at(*command["kill"])
    sys.argv = [command.get("file", "equipoise"), *command["arguments"]]
    if "file" in command:
        runpy.run_path(command["file"], run_name="__main__")
    else:
        cli.main()


def fork(command: dict[str, Any]) -> dict[str, Any]:
    """Execute a command in a fork; its status (negative: the signal), what it said on stdout, on stderr (`errors`)
    and on both (`printed`), and the seconds it used."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                execute(command)
                status = 0
            except SystemExit as ended:
                status = int(ended.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        if command.get("signal"):
            interrupt(child, *command["signal"])
        if command.get("signal_after"):
            interrupt_after(child, *command["signal_after"])
        _, status, used = os.wait4(child, 0)
        said = []
        for file in (out, errors):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
        return {
            "status": os.waitstatus_to_exitcode(status),
            "stdout": said[0],
            "errors": said[1],
            "printed": "".join(said),
            "seconds": used.ru_utime + used.ru_stime,
        }


def interrupt(child: int, seconds: float, number: int) -> None:
    """Send a signal to a process that still runs when it has had so much of the processor's time."""
    handle, clock = os.pidfd_open(child), (~child << 3) | 2  # Linux's number for a process's clock
    while (left := seconds - time.clock_gettime(clock)) > 0:
        ended, _, _ = select.select([handle], [], [], max(left, 0.001))
        if ended:
            break
    else:
        os.kill(child, number)  # it has not been waited for, so its number is its own
    os.close(handle)


def interrupt_after(child: int, folder: str, steps: int, number: int) -> None:
    """Send a signal to a process that still runs when the runs that it has others make have come so far."""
    handle, came = os.pidfd_open(child), False
    while not came and not select.select([handle], [], [], 0.002)[0]:
        logs = Path(folder).rglob("metrics.jsonl" if steps else "*.log")
        came = sum(log.read_bytes().count(b"\n") if steps else 1 for log in logs) >= max(steps, 1)
    if came:
        os.kill(child, number)
    os.close(handle)


def main(*arguments: str) -> None:
    torch.set_num_threads(1)
    if arguments:
        execute(json.loads(arguments[0]))
        return
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.path.append(str(Path(__file__).parents[1]))
    from processes._forked_group import fork_group

    gc.freeze()  # no fork looks through what is there to stay, nor copies its pages for that
    for line in sys.stdin:
        command = json.loads(line)
        answer = fork_group(command, execute) if command.get("processes") else fork(command)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
