"""Which files of this disk a report may hold.

A run directory may come from somebody else, and a report is made to be sent on. A line of `predictions/TASK.jsonl` can
name any file; what is shown of it has to lie where the run's own recipe says that its data is, where equipoise keeps
what it fetches, or in the run directory itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from equipoise.packages import cache_folder

_FOLDER = re.compile(r"folder|dir|path|root", re.IGNORECASE)
"""What an option is called that names a folder; `image_folder` of the llava reader."""


def media_roots(settings: Any, run: Path) -> list[Path]:
    """The folders from which a run's pictures and clips may come.

    Args:
        settings: its recipe as plain data, whatever that holds. Relative paths count from the working directory, as
            they do in training.
        run: its directory.

    Returns:
        Resolved folders that exist. None of them is the root of the disk, the home folder or one that holds it.
    """
    found = [cache_folder(), run, *_named(settings)]
    roots = [folder for path in found if (folder := _folder(path)) is not None and not _holds_home(folder)]
    return list(dict.fromkeys(roots))


def allowed_file(path: str, roots: Sequence[Path]) -> Path | None:
    """The file that a path leads to, links followed; None where it is outside the folders, absent or no plain file."""
    try:
        file = Path(path).resolve(strict=True)
        # A name may stand for something that never ends, or that waits for a writer.
        return file if any(file.is_relative_to(root) for root in roots) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return None


def _named(settings: Any) -> Iterator[Path]:
    """What the recipe names: each task's path, and the options that are folders."""
    tasks = settings.get("tasks") if isinstance(settings, dict) else None
    for task in tasks if isinstance(tasks, list) else ():
        if isinstance(task, dict):
            options = task.get("options")
            items = list(options.items()) if isinstance(options, dict) else []
            roots = task.get("media_roots")
            named = list(roots) if isinstance(roots, list) else []
            named += [value for key, value in items if _FOLDER.search(str(key))]
            yield from (Path(value) for value in (task.get("path"), *named) if isinstance(value, str))


def _folder(path: Path) -> Path | None:
    """The folder itself, or the one that holds the file."""
    try:
        found = path.resolve(strict=True)
        return found if found.is_dir() else found.parent
    except (OSError, ValueError, RuntimeError):
        return None


def _holds_home(folder: Path) -> bool:
    try:
        home = Path.home().resolve()
    except (OSError, RuntimeError):  # nobody's
        home = Path(folder.anchor)
    return home.is_relative_to(folder)
