"""A recipe's tasks, read: the samples of each split, and the mixture that training draws from."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from typing import Literal

from torch.utils.data import Dataset

from equipoise.data.readers import asterisk, easy_vqa, jsonl, tuxpaint
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.recipe import Recipe, Task

Part = Literal["train", "validation", "test"]
READERS: dict[str, Callable[..., list[Sample]]] = {
    "asterisk": asterisk.read,
    "easy_vqa": easy_vqa.read,
    "jsonl": jsonl.read,
    "tuxpaint": tuxpaint.read,
}


class SampleDataset(Dataset[Sample]):
    """Samples by number, as a DataLoader wants them; images are opened when a batch is collated."""

    def __init__(self, samples: Sequence[Sample]):
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def read_task(task: Task, part: Part, seed: int) -> list[Sample]:
    """Read one part of a task, cut to its `max_...` by a seeded draw that keeps the order.

    Returns:
        The samples; none where the recipe leaves the part out.

    Raises:
        DataError: unreadable data, an unknown option, or no sample at all.
    """
    split: str | None = getattr(task, part)
    if split is None:
        return []
    reader = READERS[task.reader]
    allowed = [name for name in inspect.signature(reader).parameters if name not in ("task", "split", "path")]
    for name in task.options:
        if name not in allowed:
            raise DataError(
                f"tasks.{task.name}.options.{name}: the {task.reader} reader has no such option; "
                f"allowed: {', '.join(allowed) or 'none'}"
            )
    samples = reader(task.name, split, path=task.path, **task.options)
    if not samples:
        raise DataError(f"tasks.{task.name}: split {split!r} has no samples")
    limit: int | None = getattr(task, f"max_{part}")
    if limit is not None and limit < len(samples):
        chosen = sorted(random.Random(f"{seed}/{task.name}/{part}").sample(range(len(samples)), limit))
        samples = [samples[index] for index in chosen]
    return samples


def read_mixture(recipe: Recipe, part: Part) -> list[Sample]:
    """One part of every task, one after the other; a Trainer's sampler mixes them by size."""
    return [sample for task in recipe.tasks for sample in read_task(task, part, recipe.train.seed)]
