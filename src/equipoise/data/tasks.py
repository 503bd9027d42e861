"""A recipe's tasks, read: the samples of each part, processed as the recipe says, and the mixture of all."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from equipoise.data import processing
from equipoise.data.media import checked
from equipoise.data.mixture import Mixture
from equipoise.data.readers import find_reader
from equipoise.data.readers.files import allowing
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.data.store import Samples, index
from equipoise.errors import DataError
from equipoise.recipe import Recipe, Task
from equipoise.texts import shown

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
SHOWN = 20  # flaws that are spelled out
LONGEST = 1_000_000  # characters of a conversation
Notify = Callable[[str], None]


class NothingReadable(DataError):
    """A split whose samples all have a flaw; the first of them is the message."""


def read_task(
    task: Task, part: Part, seed: int, skip: bool = False, notify: Notify = lambda _: None, fresh: bool = False
) -> Samples | None:
    """Read one part of a task and process it: held out, merged, cut to its `max_...` and its `fraction`.

    Args:
        seed: of all draws; each depends on the task's name and the part as well.
        skip: leave out samples that cannot be read (`data.on_error`); otherwise the first of them is an error.
        notify: told now and then how far the reading of a large file is.
        fresh: read anew, and with `skip` open every image and clip anew, whether or not the files have changed.

    Returns:
        The samples; None where the recipe leaves the part out.

    Raises:
        DataError: unreadable data, an unknown option, or no sample at all.
    """
    split = split_of(task, part)
    if split is None:
        return None
    samples = _read(task, split, skip, notify, fresh)
    draws = f"{seed}/{task.name}"
    if task.hold_out:
        sizes = {str(name): size for name, size in task.hold_out.items()}
        try:
            samples = samples.select(processing.hold_out(len(samples), sizes, part, f"{draws}/hold_out"))
        except ValueError as error:
            raise DataError(f"tasks.{task.name}.hold_out: {error}") from None
    if task.merge and part == "train":
        samples = samples.merged(f"{draws}/merge", task.max_turns)
    limit: int | None = getattr(task, f"max_{part}")
    if limit is not None and limit < len(samples):
        samples = samples.select(processing.draw(len(samples), limit, f"{draws}/{part}"))
    if part == "train" and task.fraction is not None:
        samples = _share(samples, task.share_of(len(samples)), f"{draws}/fraction")
    return samples


def split_of(task: Task, part: Part) -> str | None:
    """The split that a part is read from; None where the recipe leaves the part out."""
    if getattr(task, part) is None or (task.hold_out and part not in ("train", *task.hold_out)):
        return None
    split: str | None = task.train if task.hold_out else getattr(task, part)
    return split


def read_mixture(recipe: Recipe, part: Part, notify: Notify = lambda _: None) -> Mixture:
    """One part of every task, one task after the other; `Mixture` says in which order training draws from it.

    Raises:
        DataError: as `read_task`, or no task has a training part.
    """
    check_trains(recipe)
    skip = recipe.data.on_error == "skip"
    parts = {task.name: read_task(task, part, recipe.train.seed, skip, notify) for task in recipe.tasks}
    return Mixture({name: samples for name, samples in parts.items() if samples is not None})


def check_trains(recipe: Recipe) -> None:
    """Raise a DataError unless a task has a training part."""
    if all(split_of(task, "train") is None for task in recipe.tasks):
        raise DataError("no task has a training part: train is null in all of them")


def left_out(mixture: Mixture) -> dict[str, dict[str, Any]]:
    """What became of each task's rows: the samples used, those skipped, and a line on each of the first of these."""
    return {
        name: {
            "samples": len(samples),
            "skipped": len(samples.store.flaws),
            "flaws": [flaw.line(name) for flaw in samples.store.flaws[:SHOWN]],
        }
        for name, samples in mixture.parts.items()
    }


def is_unanswered(task: Task, part: Part) -> bool:
    """Whether the owners keep the part's answers secret: predictions can be made and not scored."""
    return split_of(task, part) in find_reader(task.reader).unanswered


def _read(task: Task, split: str, skip: bool, notify: Notify, fresh: bool) -> Samples:
    reader = find_reader(task.reader)
    allowed = [name for name in inspect.signature(reader.read).parameters if name not in ("task", "split", "path")]
    for name in task.options:
        if name not in allowed:
            raise DataError(
                f"tasks.{task.name}.options.{name}: the {task.reader} reader has no such option; "
                f"allowed: {', '.join(allowed) or 'none'}"
            )
    _check_kinds(task, get_type_hints(reader.read))
    scored = task.metric is not None and split not in reader.unanswered

    def rows() -> Iterable[Sample | Flaw]:
        found = reader.read(task.name, split, task.path, **task.options)
        usable = (_usable(row, str(task.path), scored) for row in found)
        return checked(usable) if skip else usable

    def flawed(flaw: Flaw) -> None:
        if not skip:
            raise DataError(flaw.line(task.name))

    place = str(task.path.resolve()) if task.path else None
    roots = [str(root.resolve()) for root in task.media_roots]
    with allowing(task.media_roots):
        store = index(
            [task.reader, split, place, task.options, _here(task), scored, skip, roots],
            rows,
            flawed,
            lambda count: notify(f"indexing {task.name}, {split}: {count:,} samples"),
            fresh,
        )
    if not len(store):
        if not store.flaws:
            raise DataError(f"tasks.{task.name}: split {split!r} has no samples")
        count = len(store.flaws)
        raise NothingReadable(f"{store.flaws[0].line(task.name)} (readable in split {split!r}: 0 of {count} samples)")
    wording = task.response_format if task.response_format is not None else reader.response_format
    return Samples(store, task.name, response_format=wording or "")


def _check_kinds(task: Task, hints: dict[str, Any]) -> None:
    """Raise a DataError unless each option is of the kind that the reader wants; it may look like anything in YAML."""
    for name, value in task.options.items():
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError:
            kind = getattr(hints[name], "__name__", None) or str(hints[name])
            raise DataError(f"tasks.{task.name}.options.{name}: found {shown(value)}; expected {kind}") from None


def _share(samples: Samples, size: int, seed: str) -> Samples:
    """So many samples, in order; a smaller number of them is part of a larger one."""
    order = random.Random(seed).sample(range(len(samples)), len(samples))
    return samples.select(np.sort(order[:size]))


def _here(task: Task) -> str | None:
    """Where relative paths begin, if an option may be one."""
    return os.getcwd() if task.options else None


def _usable(row: Sample | Flaw, source: str, scored: bool) -> Sample | Flaw:
    """A flaw for what cannot be written down, and for what is scored with nothing to be scored against."""
    if isinstance(row, Flaw):
        return row
    if scored and not row.references:
        return Flaw(row.id, source, "it has no references, and the task has a metric")
    length = sum(len(turn.text) for turn in row.turns)
    if length > LONGEST:
        return Flaw(row.id, source, f"it has {length:,} characters; {LONGEST:,} are allowed")
    texts = (row.id, *(turn.text for turn in row.turns), *row.references, *map(str, (*row.images, *row.audios)))
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return Flaw(row.id, source, "it holds half of a character (a lone surrogate); expected Unicode")
    return row
