"""Which checkpoint is whole: one whose files are as they were written, by a hash of each, against accidents alone.

`checksums.json` is begun before a checkpoint's other files and finished after all of them, so that one which was cut
short says so itself. A checkpoint without it is of an older version, or of another Trainer.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import xxhash

SUMS = "checksums.json"
STATE = "trainer_state.json"


def sums_of(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Size and XXH3 (128 bits) of each file of a checkpoint, by its path in it."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != SUMS)
    return {path.relative_to(checkpoint).as_posix(): _sum(path) for path in files}


def flaw_of(checkpoint: Path, step: int) -> str | None:
    """Why a checkpoint cannot be gone on from; None where it can.

    Args:
        step: that its name says.

    Raises:
        OSError: a file that is there cannot be read, which may be otherwise the next time.
    """
    try:
        files = _read(checkpoint / SUMS)["files"]
    except FileNotFoundError:
        files = {}
    except (ValueError, TypeError, KeyError):
        return f"its {SUMS} is damaged"
    if files is None:
        return "it was not written to its end"
    try:
        if _read(checkpoint / STATE)["global_step"] != step:
            return f"its {STATE} is not of step {step}"
        for name, expected in files.items():
            found = (checkpoint / name).stat().st_size
            if found != expected["size"]:
                return f"its {name} has {found} bytes of {expected['size']}"
            if _sum(checkpoint / name) != expected:
                return f"its {name} is not what was written there (XXH3)"
    except FileNotFoundError as error:
        return f"its {Path(error.filename).relative_to(checkpoint)} is missing"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"its {STATE} or {SUMS} is damaged"
    return None


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _sum(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {"size": file.stat().st_size, "xxh3": hashlib.file_digest(opened, xxhash.xxh3_128).hexdigest()}
