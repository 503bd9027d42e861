"""Progress of a training run: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from equipoise.texts import printable

SECONDS_BETWEEN_LINES = 20.0
#: What is shown, by key of the log. The window's average is what schedules act on; beside it, the newest measurement.
FIGURES = {
    "loss": "loss",
    "kappa": "kappa",
    "kappa_average": "average",
    "eval_loss": "validation",
    "steps_skipped": "not made",
}


class ProgressReport(TrainerCallback):
    """Shows step, loss, kappa and the time left.

    Args:
        console: where to.
        name: what is being trained, in front of the bar.
    """

    def __init__(self, console: Console, name: str):
        self.console = console
        self.name = name
        self._bar: Progress | None = None
        self._task: Any = None
        self._began = self._shown = time.monotonic()
        self._first_step = 0
        self._latest: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began, self._shown, self._first_step = time.monotonic(), 0.0, state.global_step
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task(
                printable(self.name), total=state.max_steps, completed=state.global_step, figures="first step ..."
            )
            self._bar.start()
        else:
            self.console.print(f"{self.name}: {state.max_steps} steps, from step {state.global_step}", highlight=False)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        for key in FIGURES:
            if logs and logs.get(key) is not None:
                self._latest[key] = logs[key]
        if "loss" not in (logs or {}):
            return
        figures = self._figures()
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, figures=figures)
            return
        now = time.monotonic()
        if now - self._shown >= SECONDS_BETWEEN_LINES or state.global_step == state.max_steps:
            self._shown = now
            left = (now - self._began) / max(state.global_step - self._first_step, 1)
            left *= state.max_steps - state.global_step
            line = f"{self.name}: step {state.global_step}/{state.max_steps}  {figures}  {left:.0f} s left"
            self.console.print(line, highlight=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was; harmless to repeat."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _figures(self) -> str:
        found = ((words, self._latest.get(key)) for key, words in FIGURES.items())
        return "  ".join(f"{words} {value:.3g}" for words, value in found if value is not None)
