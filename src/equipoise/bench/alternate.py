"""Several Trainers in one process, a step of each in turn, so that whatever disturbs the machine disturbs all alike.

Each runs its own `train()` in a thread of its own and waits where a step begins; exactly one thread runs at a time. A
step's time is that from the moment its batch is there to the end of `on_step_end`: forward, backward, clipping,
optimizer, scheduler, balance and its log, as in any run. Fetching and collating the batch is left out for all.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Trainer, TrainerCallback


@dataclass(frozen=True)
class Step:
    """One step of one Trainer.

    Attributes:
        seconds: wall time.
        measured: whether drifts were measured in it.
    """

    seconds: float
    measured: bool


def alternate(
    trainers: Mapping[str, Trainer], rounds: int, seed: int, notify: Callable[[int], None] = lambda _: None
) -> dict[str, list[Step]]:
    """Let every Trainer make one step a round, in an order that is drawn anew each round.

    Args:
        trainers: by name; each has at least so many steps to make.
        seed: of the orders.
        notify: called after each round with its number.

    Returns:
        The steps of each, by name, a step a round.
    """
    runners = {name: _Runner(trainer) for name, trainer in trainers.items()}
    names = list(runners)
    draw = random.Random(seed)
    try:
        for runner in runners.values():
            runner.begin()
        for number in range(1, rounds + 1):
            draw.shuffle(names)
            for name in names:
                runners[name].step()
            notify(number)
    finally:
        for runner in runners.values():
            runner.end()
    return {name: runner.steps for name, runner in runners.items()}


class _Stopped(Exception):
    """Ends a Trainer's loop where it waits."""


class _Runner(TrainerCallback):
    """A Trainer's loop in a thread, held where each step begins."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.steps: list[Step] = []
        self._began = 0.0
        self._stops = False
        self._error: BaseException | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._train, daemon=True)
        trainer.add_callback(self)  # the last, so that what other callbacks do at a step's end is in its time

    # ------------------------------------------------------------------ from the thread that alternates

    def begin(self) -> None:
        """Run up to the first step."""
        self._thread.start()
        self._wait()

    def step(self) -> None:
        """Make one step, and all that follows until the next begins: logging, the next batch."""
        self._go.release()
        self._wait()

    def end(self) -> None:
        """Leave the loop, wherever it is."""
        self._stops = True
        self._go.release()
        if self._thread.ident is not None:
            self._thread.join()
        self.trainer.remove_callback(self)

    def _wait(self) -> None:
        self._back.acquire()
        if self._error is not None:
            raise self._error

    # ------------------------------------------------------------------ from the Trainer's thread

    def _train(self) -> None:
        try:
            self.trainer.train()
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._back.release()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        accelerator = self.trainer.accelerator
        synchronises = accelerator.sync_gradients  # one flag for all Trainers of a process
        self._back.release()
        self._go.acquire()
        if self._stops:
            raise _Stopped
        accelerator.gradient_state._set_sync_gradients(synchronises)
        self._began = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = _now() - self._began
        record = getattr(self.trainer, "_record", {})
        self.steps.append(Step(seconds, any(key.startswith("drift/") for key in record)))


def _now() -> float:
    """The time, when the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
