"""A disk that is full or may not be written, in one line instead of a library's traceback.

Python says so by an OSError with a number; torch by a RuntimeError of its archive's writer, safetensors and tokenizers
by errors with the number in their text. Everything of value is written whole or not at all, so nothing is lost by it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from equipoise.errors import DiskError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
BROKEN = frozenset({errno.EIO, errno.ESTALE})
#: As Rust's io::Error prints itself.
NUMBER = re.compile(r"\(os error (\d+)\)")
#: Of torch's writer, which does not say why: "file write failed", or "unexpected pos" when what failed is closed, or
#: the C++ stream's own "iostream error" when it is its last bytes that find no room.
ARCHIVE = re.compile(r"PytorchStreamWriter|inline_container|\bunexpected pos \d+|\biostream error")


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What goes wrong with the disk inside is said of a folder.

    Raises:
        DiskError: it is full, or may not be written.
    """
    try:
        yield
    except Exception as error:
        line = trouble(error, folder)
        if line is None:
            raise
        raise DiskError(line) from error


def trouble(error: Exception, folder: Path | None = None) -> str | None:
    """What an error says of the disk, in a line; None where it is about something else.

    Args:
        folder: what was being written in, where the error does not name a file.
    """
    number = _number(error)
    if number is None:
        return None
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    place = Path(os.fsdecode(named)) if isinstance(named, str | bytes | os.PathLike) else folder
    where = str(place) if place is not None else "a file"
    if number in FULL:
        return (
            f"{where}: {os.strerror(number)}{_room(folder or place)}; what was written whole stays, and the command "
            "goes on with it when it is started again (train with --resume)"
        )
    return f"{where}: {os.strerror(number)}"


def _number(error: Exception) -> int | None:
    """The system's number for what happened to the disk."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        found = NUMBER.search(str(error))
        if found is not None and (type(error) is Exception or type(error).__name__ == "SafetensorError"):
            number = int(found[1])
        elif isinstance(error, RuntimeError) and ARCHIVE.search(str(error)):
            return errno.ENOSPC
    return number if number in FULL | CLOSED | BROKEN else None


def _room(place: Path | None) -> str:
    while place is not None and not place.exists() and place != place.parent:
        place = place.parent
    try:
        return f" ({shutil.disk_usage(place).free / 2**20:.1f} MB free)" if place is not None else ""
    except OSError:
        return ""
