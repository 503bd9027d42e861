"""`equipoise diagnose --follow`: a line whenever the diagnosis of a run changes, until the run is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from equipoise.errors import RunError
from equipoise.report.diagnosis import BalanceDiagnosis, Diagnosis, diagnose_folder
from equipoise.watching.files import signature
from equipoise.watching.live import PATIENCE, PAUSE, is_finished, is_ready

Found = Diagnosis | BalanceDiagnosis


def follow(
    folder: Path, changed: Callable[[Found], None], waiting: Callable[[], None], pause: float = PAUSE
) -> Found | None:
    """Watch a folder until it is finished.

    Args:
        folder: a run directory or a balance; it need not exist yet. A log of `attach()` never says that it is
            finished: interrupt.
        changed: called with the first diagnosis, and with each that says another thing than the one before.
        waiting: called once where there is nothing to diagnose yet.
        pause: seconds between two looks; a long log is read less often.

    Returns:
        The last diagnosis: of the finished run, or of what there is when the user interrupts; None where there never
        was anything before the interrupt.

    Raises:
        RunError: it is finished and there is nothing to diagnose, or it cannot be read.
    """
    said, seen, found, told = None, None, None, False
    try:
        while True:
            began = time.monotonic()
            # Asked before the log is read: what is written until then is in it.
            done, now = is_finished(folder), signature([folder])
            # Finished without a step: what diagnose says of it without following.
            if (is_ready(folder) and now != seen) or (done and found is None):
                seen, found = now, diagnose_folder(folder)
                if found.sentence() != said:
                    said = found.sentence()
                    changed(found)
            elif found is None and not told:
                waiting()
                told = True
            if done:
                return found
            time.sleep(max(pause, PATIENCE * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return found
    except OSError as error:
        raise RunError(f"{folder} cannot be read: {error.strerror or error}") from None
