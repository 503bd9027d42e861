"""Parquet files whose columns are the keys of `equipoise.data.readers.jsonl`; images and audio may be in them.

`path` is one file, which has the split `train` alone, or a folder with `SPLIT.parquet` or, as data hubs write them,
`SPLIT-00000-of-00002.parquet` and so on. Other columns are not read. A row without an id has its number in the split.
Rows are read a few at a time, in the files' order.
"""

from __future__ import annotations

from collections.abc import Iterator
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any

from equipoise.data.readers.files import note, opening
from equipoise.data.readers.reader import Flaw, Reader, check_split
from equipoise.data.readers.table import KEYS, ROWS, table_samples
from equipoise.data.sample import Sample
from equipoise.errors import DataError

#: Of one row group, uncompressed.
MOST_ROWS, MOST_BYTES = 64_000_000, 4_000_000_000


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    folder = path.parent if path.is_file() else path
    number = count(1)
    for source in _sources(task, split, path):
        rows = ((next(number), row) for row in _rows(task, source))
        yield from table_samples(task, folder, rows, source)


def _sources(task: str, split: str, path: Path) -> list[Path]:
    if path.is_file():
        check_split(task, "parquet", split, ("train",))
        return [path]
    note(path)  # another part may be put there
    one = path / f"{split}.parquet"
    try:
        found = [one] if one.is_file() else sorted(path.glob(f"{escape(split)}-*.parquet"))
    except (NotImplementedError, ValueError, OSError):  # a split whose name is no part of a file's
        found = []
    if not found:
        raise DataError(f"task {task}: {path} holds neither {split}.parquet nor {split}-*.parquet")
    return found


def _rows(task: str, source: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet  # takes a while to import, and most commands do without

    done = 0
    with opening(task, source) as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            columns = [name for name in table.schema_arrow.names if name in KEYS]
            _check(f"task {task}: {source}", table.metadata, columns)
            for batch in table.iter_batches(ROWS, columns=columns):
                batch.validate(full=True)
                yield from batch.to_pylist()
                done += len(batch)
        except DataError:
            raise
        except Exception as error:  # values that cannot be Python's raise what they like
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"task {task}: {source} is cut short or no Parquet after {done} rows ({reason:.200})"
            ) from error


def _check(where: str, metadata: Any, columns: list[str]) -> None:
    """Refuse a file that says of itself that it would not fit: a few bytes of it can stand for any number of values.

    Raises:
        DataError: too many rows, or no column that is read.
    """
    if not columns:
        raise DataError(f"{where} has none of the columns {', '.join(KEYS)}")
    for group in range(metadata.num_row_groups):
        # Not by column: asked for one whose statistics are broken, pyarrow ends the process.
        found = metadata.row_group(group)
        if found.total_byte_size > MOST_BYTES or found.num_rows > MOST_ROWS:
            raise DataError(
                f"{where}: row group {group} has {found.num_rows:,} rows in {found.total_byte_size:,} bytes; "
                f"{MOST_ROWS:,} in {MOST_BYTES:,} are allowed"
            )


READER = Reader(read)
