"""How files are opened that somebody else may have put there: plain files alone, and no more of them than makes sense.

A pipe waits for whoever writes into it, a device may never end; either may stand under the name of a file that is
expected.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 16  # bytes


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to read its bytes; links are followed.

    Raises:
        OSError: it cannot be opened, or is no plain file; also where no file can have that path.
    """
    try:
        # A pipe without a writer would be waited for, without O_NONBLOCK, before one can ask what it is.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null byte; half a character
        raise OSError(errno.EINVAL, "no file can have that path") from error
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(handle, "rb")


def read_plain(path: Path, most: int) -> bytes:
    """The content of a plain file of at most so many bytes.

    Raises:
        OSError: as `open_plain`; or it is larger.
    """
    content = bytearray()
    with open_plain(path) as file:
        while piece := file.read(PIECE):  # asked for all at once, it would take room for the most at once
            content += piece
            if len(content) > most:
                raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return bytes(content)
