"""Whether what a report reads has changed, for the price of a few system calls.

Checkpoints and models are not looked at: no report reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

Signature = tuple[tuple[str, int, int, int], ...]
"""Path, number, size and time of last change (ns) of each file; folders that exist have zeros."""

NODES, PREDICTIONS = "nodes", "predictions"
OURS = ("report.html",)
"""Written from the same files; a report that was drawn meanwhile is no news."""


def signature(folders: Sequence[Path]) -> Signature:
    """What the files of run directories and balances look like from outside; folders may not exist."""
    found = [(str(folder), 0, 0, 0) for folder in folders if folder.is_dir()]
    for folder in folders:
        for file in _files(folder):
            try:
                stat = file.stat()
            except OSError:  # replaced or deleted meanwhile
                continue
            found.append((file.path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def newest(found: Signature) -> float | None:
    """When anything was last written, in seconds since 1970; None where there is nothing."""
    return max((changed for *_, changed in found), default=0) / 1e9 or None


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        if entry.is_file() and not entry.name.startswith(".") and entry.name not in OURS:
            yield entry
        elif entry.name == PREDICTIONS and entry.is_dir():
            yield from (file for file in _entries(Path(entry.path)) if file.is_file())
        elif entry.name == NODES and entry.is_dir():
            for node in _entries(Path(entry.path)):
                if node.is_dir():
                    yield from _files(Path(node.path))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
