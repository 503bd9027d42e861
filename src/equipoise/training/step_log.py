"""What a run writes about each step: `metrics.jsonl`, and beside it `timings.jsonl` with all that the clock says."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from equipoise.modules.step_guard import Refusal
from equipoise.training.run_directory import LineLog, RunDirectory


class StepLog:
    """The logs of a run, which are open while it trains.

    Args:
        run: whose they are.
        writes: whether this process writes them; of several, the first does.
    """

    def __init__(self, run: RunDirectory, writes: bool):
        self._run = run
        self._writes = writes
        self._metrics: LineLog | None = None
        self._timings: LineLog | None = None
        self._began = 0.0
        self._balance_seconds = 0.0

    def open(self, step: int) -> None:
        """Begin, or go on, after a step; lines of later ones are dropped."""
        if self._writes:
            self._run.rewind(step)
            self._metrics = LineLog(self._run.metrics_file)
            self._timings = LineLog(self._run.timings_file)

    def close(self) -> None:
        """Write no more; an evaluation may follow."""
        for log in (self._metrics, self._timings):
            if log is not None:
                log.close()
        self._metrics = self._timings = None

    def begin_step(self) -> None:
        """The step's time counts from here."""
        self._began, self._balance_seconds = time.perf_counter(), 0.0

    @contextmanager
    def counted_as_balance(self) -> Iterator[None]:
        """The time that passes inside is that of measuring and balancing."""
        began = time.perf_counter()
        yield
        self._balance_seconds += time.perf_counter() - began

    def end_step(
        self, step: int, epoch: float | None, loss: float, record: Mapping[str, float], refusal: Refusal | None
    ) -> None:
        """Write the step's lines.

        Args:
            step, epoch: where the run is after it.
            loss: over all tokens of the step.
            record: what else was measured.
            refusal: why it was not made; None where it was.
        """
        if self._metrics is None or self._timings is None:
            return
        why = {"skipped_because": refusal.why} if refusal is not None else {}
        self._metrics.write({"step": step, "epoch": epoch, "loss": loss, **record, **why})
        seconds = time.perf_counter() - self._began
        self._timings.write({"step": step, "step_seconds": seconds, "balance_seconds": self._balance_seconds})

    def validated(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write the validation loss, if there is one among the metrics of an evaluation."""
        if self._metrics is not None and "eval_loss" in metrics:
            self._metrics.write({"step": step, "validation_loss": metrics["eval_loss"]})

    def end(self, step: int, why: str) -> None:
        """Write why the run ends before its last step, after all that was logged."""
        self.close()
        if self._writes:
            log = LineLog(self._run.metrics_file)
            log.write({"step": step, "ended": why})
            log.close()
