"""Results that outlive the process that made them: a line a batch, so that an evaluation goes on where it stopped.

Batches are the same whoever works on them and whenever, and so are the results. Several processes share them and each
writes a file of its own; an evaluation may be resumed by another number of processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from equipoise.data.sample import Sample
from equipoise.training.run_directory import write_atomically

Results = dict[int, list[Any]]


def fingerprint(settings: Any, samples: Iterable[Sample]) -> str:
    """A digest of what results depend on.

    Args:
        settings: plain data.
        samples: whole conversations count, and their files' sizes and times.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    states: dict[Path, list[Any]] = {}
    for sample in samples:
        media = [*sample.images, *sample.audios]
        for path in media:
            if path not in states:
                states[path] = [str(path), *state_of(path)]
        turns = [[turn.role, turn.text] for turn in sample.turns]
        digest.update(json.dumps([sample.id, turns, [states[path] for path in media]]).encode())
    return digest.hexdigest()


def state_of(path: Path) -> list[int]:
    """What changes when a file does; nothing of one that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


class Unfinished:
    """The results so far of one set of samples.

    Args:
        folder: the files are `FOLDER/NAME.PROCESS.jsonl`.
        name: of what the results are.
        digest: the fingerprint; files with another one are of no use and are overwritten.
        process: the number of this process.
    """

    def __init__(self, folder: Path, name: str, digest: str, process: int = 0):
        self.folder = folder
        self.name = name
        self.digest = digest
        self.file = folder / f"{name}.{process}.jsonl"

    def read(self) -> Results:
        """The results of the batches that are done, by batch number, whichever process did them."""
        done: Results = {}
        for file in sorted(self.folder.glob(f"{self.name}.*.jsonl")):
            done |= self._read(file)
        return done

    def begin(self) -> None:
        """Go on with this process's file, without what was cut short or belongs to another evaluation."""
        lines = [
            json.dumps(self.digest),
            *(_line(number, results) for number, results in self._read(self.file).items()),
        ]
        write_atomically(self.file, "\n".join(lines) + "\n")

    def append(self, number: int, results: Sequence[Any]) -> None:
        """Keep the results of one batch."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(_line(number, results) + "\n")

    def _read(self, file: Path) -> Results:
        done: Results = {}
        try:
            # As bytes: a line may have been cut short inside a character.
            lines = file.read_bytes().split(b"\n")
            if json.loads(lines[0]) != self.digest:
                return done
            for line in lines[1:]:
                number, *results = json.loads(line)
                done[number] = results
        except (OSError, ValueError):  # none yet, or its last line was cut short
            pass
        return done


def _line(number: int, results: Sequence[Any]) -> str:
    return json.dumps([number, *results], ensure_ascii=False)


def in_batches(
    work: Callable[[Sequence[Sample]], Sequence[Any]],
    samples: Sequence[Sample],
    batch_size: int,
    unfinished: Unfinished,
    state: PartialState,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[Any]]:
    """Work on all samples, together with the other processes; each gets the results of all batches, in order.

    Args:
        work: takes the samples of one batch and returns plain data.
        unfinished: where results are kept; what is found there is not done again.
        advance: called with the number of samples that are done, of this process's share.
    """
    numbers = range(-(-len(samples) // batch_size))
    # One process looks, so that all divide the same rest; and nobody rewrites a file that another still reads.
    [done] = broadcast_object_list([unfinished.read() if state.is_main_process else None])
    unfinished.begin()
    advance(min(len(done) * batch_size, len(samples)) // state.num_processes)
    mine: Results = {}
    for number in [number for number in numbers if number not in done][state.process_index :: state.num_processes]:
        batch = samples[number * batch_size : (number + 1) * batch_size]
        mine[number] = list(work(batch))
        unfinished.append(number, mine[number])
        advance(len(batch))
    done |= dict(gather_object(list(mine.items())))
    return [done[number] for number in numbers]
