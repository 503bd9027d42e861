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
    found = [(str(folder), 0, 0, 0) for folder in folders if os.path.isdir(folder)]
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


def _files(folder: Path, nodes: bool = True) -> Iterator[os.DirEntry[str]]:
    """Those of a folder, of its predictions, and of its nodes, which have no nodes of their own."""
    for entry in _entries(folder):
        if _is_file(entry):
            if not entry.name.startswith(".") and entry.name not in OURS:
                yield entry
        elif entry.name == PREDICTIONS and _is_folder(entry):
            yield from filter(_is_file, _entries(Path(entry.path)))
        elif entry.name == NODES and nodes and _is_folder(entry):
            for node in filter(_is_folder, _entries(Path(entry.path))):
                yield from _files(Path(node.path), nodes=False)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, or into a folder that is closed to us
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links are not followed: they may lead anywhere, and in circles."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
