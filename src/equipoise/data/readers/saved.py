"""A folder that `datasets` wrote by `save_to_disk`, whose columns are the keys of `equipoise.data.readers.jsonl`.

A `DatasetDict` has the splits that it was saved with, a `Dataset` has `train` alone. Other columns are not read. Images
and audio, which `datasets` puts into its files, are taken as the bytes they are there, not decoded. A row without an id
has its number in the split. The files are memory-mapped, and a few rows read at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equipoise.data.readers.files import inside, json_whole, note
from equipoise.data.readers.reader import Flaw, Reader, Unusable, check_split
from equipoise.data.readers.table import KEYS, ROWS, table_samples
from equipoise.data.sample import Sample
from equipoise.errors import DataError


def read(task: str, split: str, path: Path) -> Iterator[Sample | Flaw]:
    """Read one split."""
    import datasets  # takes a second to import, and most commands do without

    _check_files(task, path)
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # a folder of anything, looked into by json, pyarrow, pandas and datasets
        raise DataError(f"task {task}: {path} is no folder of datasets' save_to_disk ({_reason(error)})") from error
    if isinstance(found, datasets.DatasetDict):
        check_split(task, "saved", split, found)
        dataset, folder = found[split], path / split
        note(path / "dataset_dict.json")
    else:
        check_split(task, "saved", split, ("train",))
        dataset, folder = found, path
    for file in sorted(folder.iterdir()):
        note(file)
    yield from table_samples(task, path, enumerate(_rows(task, folder, dataset), start=1), folder)


def _check_files(task: str, path: Path) -> None:
    """The data files that the folders name are followed by whoever opens them: they must be plain, and inside.

    Raises:
        DataError: one is not.
    """
    for state in (path / "state.json", *sorted(path.glob("*/state.json"))):
        if not state.is_file():
            continue
        content = json_whole(task, state)
        files = content.get("_data_files") if isinstance(content, dict) else None
        for entry in files if isinstance(files, list) else ():
            try:
                inside(state.parent, entry.get("filename") if isinstance(entry, dict) else None, "data file")
            except (Unusable, TypeError) as error:
                raise DataError(f"task {task}: {state}: {error}") from error


def _rows(task: str, folder: Path, dataset: Any) -> Iterator[dict[str, Any]]:
    """The rows, read a few at a time: as they are stored, nothing is decoded."""
    done = 0
    try:
        columns = [name for name in dataset.column_names if name in KEYS]
        for batch in dataset.select_columns(columns).with_format("arrow").iter(ROWS):
            batch.validate(full=True)  # Arrow follows the places that a file gives, wherever they lead
            yield from batch.to_pylist()
            done += len(batch)
    except Exception as error:  # as above
        raise DataError(f"task {task}: {folder} cannot be read after {done} rows ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__:.200}"


READER = Reader(read)
