"""The processes that a launcher started (torchrun, accelerate launch, srun): found, talked to, and ended together."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import distributed

from equipoise.errors import Elsewhere, EquipoiseError, RunError

PATIENCE = timedelta(days=7)  # how long a process waits for the slower ones
REST = 0.1  # seconds in which gloo's threads let go of what was said last
ROOM = 63  # numbers that the first message of `gather` has room for
BUCKET = 2**24  # numbers that are added up at a time, so that no second copy of all of them is alive

Result = TypeVar("Result")


class TorchProcesses:
    """torch.distributed's processes, as `equipoise.modules` talks to them.

    Args:
        device: where messages must lie; that of the model.
    """

    def __init__(self, device: torch.device):
        self.count = distributed.get_world_size()
        self.number = distributed.get_rank()
        self.device = device
        self._room = ROOM

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """As `Processes`: one message, or two where somebody has more to say than anybody had before."""
        while True:
            own = torch.zeros(1 + self._room, dtype=torch.float64)
            own[0] = len(numbers)
            said = numbers[: self._room]
            own[1 : 1 + len(said)] = torch.tensor(said, dtype=torch.float64)
            own = own.to(self.device)
            everybody = [torch.empty_like(own) for _ in range(self.count)]
            distributed.all_gather(everybody, own)
            rows = torch.stack(everybody).tolist()
            longest = int(max(row[0] for row in rows))
            if longest <= self._room:
                return [row[1 : 1 + int(row[0])] for row in rows]
            self._room = longest

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """As `Processes`."""
        for bucket in _buckets(tensors):
            together = torch.cat([tensor.flatten() for tensor in bucket])
            distributed.all_reduce(together)
            sizes = [tensor.numel() for tensor in bucket]
            for tensor, total in zip(bucket, together.split(sizes), strict=True):
                tensor.copy_(total.view_as(tensor))


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Tensors of one type each, in their order, and of few numbers together."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(t.numel() for t in bucket) + tensor.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


# ---------------------------------------------------------------------- commands that run in several processes


def started() -> int:
    """How many processes a launcher started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(cpu: bool, patience: timedelta = PATIENCE) -> PartialState:
    """Meet the other processes; on a CPU accelerate looks for others only when it is told to stay there.

    Raises:
        RunError: they cannot meet.
    """
    state = PartialState(cpu=cpu, timeout=patience)
    if started() != state.num_processes:
        raise RunError(f"{started()} processes were started, and on {state.device.type} they cannot share the work")
    return state


def leave() -> None:
    """End this process's part in the group and gloo's threads: any that is alive at exit may abort the process.

    torch only lets go of the group, which a Trainer's wrapped model holds until the cycle they are in is collected.
    Its end holds Python's lock while it waits for gloo's; a thread that has just finished holds gloo's and waits for
    Python's, to let go of the last message. That one is given the time to (without it, 3 of 153 runs never ended).
    """
    if distributed.is_initialized():
        time.sleep(REST)
        distributed.destroy_process_group()
        gc.collect()


@contextmanager
def agreed(state: PartialState) -> Iterator[None]:
    """What one process raises inside ends all of them; the first to do so raises it, the others `Elsewhere`.

    No process may wait for another inside.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    failed = [error is not None]
    if state.num_processes > 1:
        failed = gather_object(failed)
    if not any(failed):
        return
    if error is None or failed.index(True) != state.process_index:
        error = Elsewhere(f"process {failed.index(True)} ended all")
    if isinstance(error, EquipoiseError):
        error.agreed = True
    raise error


def from_first(state: PartialState, work: Callable[[], Result]) -> Result:
    """What the first process finds, in all of them."""
    found: Any = None
    with agreed(state):
        if state.is_main_process:
            found = work()
    if state.num_processes > 1:
        [found] = broadcast_object_list([found])
    return cast(Result, found)


@contextmanager
def noticing_ends(state: PartialState) -> Iterator[None]:
    """Where a process ends, the talk of the others breaks off inside; the first one says so in a line.

    Raises:
        RunError: another process has ended. `Elsewhere` in all but the first.
    """
    try:
        yield
    except RuntimeError as error:
        broken = isinstance(error, distributed.DistError) or ("gloo" in str(error) and "onnection" in str(error))
        if state.num_processes == 1 or not broken:
            raise
        kind = RunError if state.is_main_process else Elsewhere
        raise kind("another process has ended; --resume goes on from the newest checkpoint") from error
