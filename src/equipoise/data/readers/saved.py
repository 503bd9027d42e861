"""A folder that `datasets` wrote by `save_to_disk`, whose columns are the keys of `equipoise.data.readers.jsonl`.

A `DatasetDict` has the splits that it was saved with, a `Dataset` has `train` alone. Other columns are not read. Images
and audio, which `datasets` puts into its files, are taken as the bytes they are there, not decoded. A row without an id
has its number in the split. The files are memory-mapped, and a few rows read at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from equipoise.data.readers.files import note
from equipoise.data.readers.reader import Flaw, Reader, check_split
from equipoise.data.readers.table import KEYS, ROWS, table_samples
from equipoise.data.sample import Sample
from equipoise.errors import DataError


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    import datasets  # takes a second to import, and most commands do without

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # a folder of anything, looked into by json, pyarrow, pandas and datasets
        reason = " ".join(str(error).split())
        raise DataError(f"task {task}: {path} is no folder of datasets' save_to_disk ({reason:.200})") from error
    if isinstance(found, datasets.DatasetDict):
        check_split(task, "saved", split, found)
        dataset, folder = found[split], path / split
        note(path / "dataset_dict.json")
    else:
        check_split(task, "saved", split, ("train",))
        dataset, folder = found, path
    for file in sorted(folder.iterdir()):
        note(file)

    columns = [name for name in dataset.column_names if name in KEYS]
    batches = dataset.select_columns(columns).with_format("arrow").iter(ROWS)  # as they are stored: nothing is decoded
    rows = (row for batch in batches for row in batch.to_pylist())
    yield from table_samples(task, path, enumerate(rows, start=1), folder)


READER = Reader(read)
