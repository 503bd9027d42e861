"""Samples in an Arrow file: written once as a stream, memory-mapped after that, one decoded when one is asked for.

`index` keeps the file of a reader's split in the user's cache folder, with what it was made from: when a source file
changes, or this package does, it is made anew, under another name, so that who still reads the old one reads the old
one. Nothing here needs the samples in memory, however many there are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from equipoise.data.processing import merge
from equipoise.data.readers.files import noting
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn
from equipoise.errors import AssetError, DataError
from equipoise.packages import cache_folder

BATCH = 1_000  # rows a record batch: what one access maps
NOTIFY_EVERY = 100_000
UNFINISHED = ".building-"
ABANDONED = 24 * 60 * 60  # seconds after which what a killed process left is swept away
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("turns", pa.list_(pa.struct([("role", pa.string()), ("text", pa.string())]))),
        ("images", pa.list_(pa.string())),
        ("audios", pa.list_(pa.string())),
        ("references", pa.list_(pa.string())),
        ("box", pa.list_(pa.float64())),
    ]
)
IMAGE, AUDIO = 1, 2  # bits of `Store.modalities`


class Store:
    """An indexed split. Its files never change; they may be removed while they are mapped.

    Attributes:
        folder: holds `samples.arrow`, a column file for each array below, `flaws.jsonl` and `sources.json`.
        lengths: [N] int32, characters of each conversation.
        modalities: [N] uint8, bits `IMAGE` and `AUDIO`.
        media: [N] uint64, equal where samples may share a conversation: the same images, clips and system turn; 0
            where there are neither images nor clips.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.lengths, self.modalities, self.media = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("lengths", "modalities", "media")
        )
        self._reader = pa.ipc.open_file(pa.memory_map(str(folder / "samples.arrow")))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getstate__(self) -> Path:
        return self.folder  # a worker process maps the file anew

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]

    def row(self, index: int, task: str) -> Sample:
        """Decode one sample, under the name of a task."""
        batch = self._reader.get_batch(index // BATCH)
        [row] = batch.slice(index % BATCH, 1).to_pylist()
        return Sample(
            id=row["id"],
            task=task,
            turns=tuple(Turn(turn["role"], turn["text"]) for turn in row["turns"]),
            images=tuple(map(Path, row["images"])),
            audios=tuple(map(Path, row["audios"])),
            references=tuple(row["references"]),
            box=tuple(row["box"]) if row["box"] is not None else None,
        )

    @cached_property
    def flaws(self) -> list[Flaw]:
        """The rows that were left out."""
        lines = (self.folder / "flaws.jsonl").read_text(encoding="utf-8").splitlines()
        return [Flaw(**json.loads(line)) for line in lines]

    @property
    def is_current(self) -> bool:
        """Whether the files and the code that it was made from are as they were."""
        made_from = json.loads((self.folder / "sources.json").read_text(encoding="utf-8"))
        return made_from["code"] == _code() and all(
            _state(Path(path)) == state for path, state in made_from["files"].items()
        )


def index(
    key: Any,
    read: Callable[[], Iterable[Sample | Flaw]],
    flawed: Callable[[Flaw], None],
    notify: Callable[[int], None],
    fresh: bool = False,
) -> Store:
    """The store of what `read` yields, from the cache where it is still current.

    Args:
        key: plain data that tells this split from all others.
        read: called where the store must be made; the files it opens through `readers.files` are watched.
        flawed: called with each row that is no sample; may raise, and nothing is kept.
        notify: called now and then with the number of samples so far.
        fresh: make it anew even so: of images that are not flawed nothing is known but that they once were not.

    Raises:
        AssetError: it cannot be written.
    """
    root = Path(os.environ.get("EQUIPOISE_INDEX") or cache_folder() / "index")
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
    for folder in root.glob(f"{name}-*"):
        try:
            store = Store(folder)
            if store.is_current and not fresh:
                return store
        except (OSError, EOFError, ValueError, KeyError):  # the machine died writing it, or another process removes it
            shutil.rmtree(folder, ignore_errors=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=root) as scratch:
            made = Path(scratch) / name
            made.mkdir()
            _write(made, read, flawed, notify)
            # What differs in what it was made of has another name; two processes that make the same make one.
            parts = b"".join((made / part).read_bytes() for part in ("sources.json", "flaws.jsonl"))
            target = root / f"{name}-{hashlib.sha256(parts).hexdigest()[:8]}"
            try:
                os.rename(made, target)
            except OSError:
                if not target.is_dir():
                    raise
    except OSError as error:
        raise AssetError(f"{root}: the samples' index cannot be written ({error}); set EQUIPOISE_INDEX") from error
    except pa.ArrowException as error:
        raise DataError(f"the samples of {key!s:.200} cannot be indexed ({error!s:.200})") from error
    store = Store(target)
    for folder in root.glob(f"{name}-*"):
        if folder != target:
            shutil.rmtree(folder, ignore_errors=True)
    return store


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _write(
    folder: Path,
    read: Callable[[], Iterable[Sample | Flaw]],
    flawed: Callable[[Flaw], None],
    notify: Callable[[int], None],
) -> None:
    lengths, modalities, media = array("i"), array("B"), array("Q")  # a million lists' items would fill memory
    flaws: list[Flaw] = []
    states: dict[str, Any] = {}

    def watch(path: Path) -> None:
        states.setdefault(str(path), _state(path))  # as it is before it is read: it may change meanwhile

    def samples() -> Iterator[Sample]:
        for row in read():
            if isinstance(row, Flaw):
                flawed(row)
                flaws.append(row)
                watch(Path(row.path))  # an image that is mended must be looked at again
                continue
            lengths.append(sum(len(turn.text) for turn in row.turns))
            modalities.append(IMAGE * bool(row.images) + AUDIO * bool(row.audios))
            media.append(_media_key(row))
            if len(lengths) % NOTIFY_EVERY == 0:
                notify(len(lengths))
            yield row

    with noting(watch), pa.OSFile(str(folder / "samples.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for batch in _batches(samples()):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
    for name, values in (("lengths", lengths), ("modalities", modalities), ("media", media)):
        np.save(folder / f"{name}.npy", np.asarray(values))
    lines = "".join(json.dumps(asdict(flaw)) + "\n" for flaw in flaws)
    (folder / "flaws.jsonl").write_text(lines, encoding="utf-8")
    (folder / "sources.json").write_text(json.dumps({"code": _code(), "files": states}), encoding="utf-8")


def _batches(samples: Iterable[Sample]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for sample in samples:
        batch.append(
            {
                "id": sample.id,
                "turns": [{"role": turn.role, "text": turn.text} for turn in sample.turns],
                "images": list(map(str, sample.images)),
                "audios": list(map(str, sample.audios)),
                "references": list(sample.references),
                "box": list(sample.box) if sample.box is not None else None,
            }
        )
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _media_key(sample: Sample) -> int:
    if not sample.images and not sample.audios:
        return 0
    system = [turn.text for turn in sample.turns if turn.role == "system"]
    names = json.dumps([list(map(str, sample.images)), list(map(str, sample.audios)), system])
    return int.from_bytes(hashlib.blake2b(names.encode(), digest_size=8).digest()) or 1


def _state(path: Path) -> list[int] | None:
    """What changes when a file does; None for one that is not there."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return [stat.st_size, stat.st_mtime_ns]


@cache
def _code() -> str:
    """A digest of the code that makes samples of files."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Samples(Sequence[Sample]):
    """A task's samples, decoded when asked for: some of a store's rows, or conversations merged of several.

    Args:
        store: where they are.
        task: the name they carry.
        rows: which rows, in order; all when None.
        bounds: [N + 1]; sample n is made of rows `rows[bounds[n]:bounds[n + 1]]`. One row each when None.
        response_format: put below each question.
    """

    def __init__(
        self,
        store: Store,
        task: str,
        rows: np.ndarray | None = None,
        bounds: np.ndarray | None = None,
        response_format: str = "",
    ):
        self.store = store
        self.task = task
        self.rows = rows if rows is not None else np.arange(len(store))
        self.bounds = bounds
        self.response_format = response_format

    def __len__(self) -> int:
        return len(self.rows) if self.bounds is None else len(self.bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        parts = [self.store.row(int(row), self.task) for row in self._rows_of(index % len(self))]
        return self._worded(parts[0] if len(parts) == 1 else _joined(parts))

    @property
    def lengths(self) -> np.ndarray:
        """[N], characters of each conversation."""
        lengths = self.store.lengths[self.rows]
        return lengths if self.bounds is None else np.add.reduceat(lengths, self.bounds[:-1])

    @property
    def modalities(self) -> np.ndarray:
        """[N], bits `IMAGE` and `AUDIO`."""
        return self.store.modalities[self.rows if self.bounds is None else self.rows[self.bounds[:-1]]]

    def select(self, indices: Sequence[int] | np.ndarray) -> Samples:
        """Some of these samples, in the order of `indices`."""
        chosen = np.asarray(indices, dtype=np.int64)
        if self.bounds is None:
            return Samples(self.store, self.task, self.rows[chosen], None, self.response_format)
        rows = [self._rows_of(index) for index in chosen]
        return Samples(
            self.store,
            self.task,
            np.concatenate(rows) if rows else self.rows[:0],
            np.cumsum([0, *map(len, rows)]),
            self.response_format,
        )

    def merged(self, seed: str, longest: int | None = None) -> Samples:
        """These samples, those about the same images and clips as one conversation (`processing.merge`)."""
        assert self.bounds is None, "merged once"
        order, bounds = merge(self.store.media[self.rows], seed, longest)
        return Samples(self.store, self.task, self.rows[order], bounds, self.response_format)

    def _rows_of(self, index: int) -> np.ndarray:
        if self.bounds is None:
            return self.rows[index : index + 1]
        return self.rows[self.bounds[index] : self.bounds[index + 1]]

    def _worded(self, sample: Sample) -> Sample:
        if not self.response_format:
            return sample
        turns = tuple(
            Turn("user", f"{turn.text}\n{self.response_format}") if turn.role == "user" else turn
            for turn in sample.turns
        )
        return Sample(
            sample.id, sample.task, turns, sample.images, sample.references, sample.audios, sample.box
        )  # fmt: skip


def _joined(parts: Sequence[Sample]) -> Sample:
    """One conversation of several about the same images: their turns one after the other, the system's once."""
    first, last = parts[0], parts[-1]
    assert all(part.images == first.images and part.audios == first.audios for part in parts), "media keys collided"
    return Sample(
        id=f"{first.id}+{len(parts) - 1}",
        task=first.task,
        turns=(*first.turns, *(turn for part in parts[1:] for turn in part.turns if turn.role != "system")),
        images=first.images,
        audios=first.audios,
        references=last.references,
    )
