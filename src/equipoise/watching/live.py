"""What a watching page shows, built anew only when it is asked for, when a file changed, and not too often."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.errors import EquipoiseError
from equipoise.report.balance.view import is_balance
from equipoise.report.comparison.view import FILE as COMPARISON
from equipoise.report.comparison.view import is_comparison
from equipoise.report.folders import page_on
from equipoise.report.markup import safe, tag
from equipoise.report.page import report_page
from equipoise.report.skeleton import Page, Section
from equipoise.report.view import read_json
from equipoise.texts import printable
from equipoise.training.run_directory import RunDirectory
from equipoise.watching.files import Signature, newest, signature

PAUSE = 2.0
"""Fewest seconds between two looks at the files."""

PATIENCE = 10.0
"""A report that took t seconds to build is not built again for `PATIENCE` t seconds: watching a run of 100,000 steps
takes at most about a tenth of one core from it."""

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"


@dataclass(frozen=True)
class Snapshot:
    """One state of the page.

    Attributes:
        page: what is shown.
        state: `waiting`, `running` or `finished`.
        progress: how far the runs are, in words.
        written: when anything was last written, in seconds since 1970.
        update: what the page's script needs to get here from any earlier state, as JSON.
        etag: of the update; equal for equal content.
    """

    page: Page
    state: str
    progress: str
    written: float | None
    update: str
    etag: str


class Live:
    """The newest state of some folders. Several threads may ask.

    Args:
        folders: run directories, or one balance or comparison; they need not exist yet.
        pause: fewest seconds between two looks at the files.
    """

    def __init__(self, folders: Sequence[Path], pause: float = PAUSE):
        self.folders = list(folders)
        self.pause = pause
        self._lock = threading.Lock()
        self._signature: Signature | None = None
        self._snapshot: Snapshot | None = None
        self._not_before = 0.0
        self._said = ""

    def snapshot(self) -> Snapshot:
        """The newest state; the one before where another thread is at work on it."""
        known = self._snapshot
        if not self._lock.acquire(blocking=known is None):
            assert known is not None
            return known
        try:
            if self._snapshot is None or time.monotonic() >= self._not_before:
                self._look()
            assert self._snapshot is not None
            return self._snapshot
        finally:
            self._lock.release()

    def _look(self) -> None:
        began = time.monotonic()
        found: Signature = ()
        try:
            found = signature(self.folders)
            if found != self._signature or self._snapshot is None:
                self._snapshot = build(self.folders, found)
        except Exception as error:  # a folder that is being copied may hold anything; what was shown stays
            self._complain(error)
            if self._snapshot is None:
                self._snapshot = snapshot_of(_unreadable(self.folders, error), WAITING, "", newest(found))
        self._signature = found
        took = time.monotonic() - began
        self._not_before = time.monotonic() + max(self.pause, PATIENCE * took)

    def _complain(self, error: Exception) -> None:
        """Say it once on the terminal; the next change may mend it."""
        said = (
            f"equipoise: the report could not be built ({type(error).__name__}: {error}); the page keeps the last one"
        )
        if said != self._said:
            print(printable(said), file=sys.stderr)
            self._said = said


def build(folders: Sequence[Path], found: Signature) -> Snapshot:
    """Read the folders.

    Raises:
        EquipoiseError: they cannot be shown together.
    """
    ready = [folder for folder in folders if is_ready(folder)]
    if not ready:
        return snapshot_of(_waiting(folders), WAITING, "", newest(found))
    balance = any(map(is_balance, folders))
    if len(folders) > 1 and not balance:  # those that are not there yet keep their place and colour
        page = report_page([RunDirectory(folder) for folder in folders])
    else:
        page = page_on(folders)
    state = FINISHED if all(map(is_finished, folders)) else RUNNING
    return snapshot_of(page, state, _progress(folders), newest(found))


def snapshot_of(page: Page, state: str, words: str, written: float | None) -> Snapshot:
    """A page as a state."""
    content = {
        "title": printable(page.title),
        "heading": page.heading,
        "subtitle": printable(page.whole_subtitle),
        "main": f"\n{page.body()}",
        "state": state,
        "progress": words,
    }
    # The figures are JSON already; they may be megabytes.
    text = f'{json.dumps(content)[:-1]}, "charts": {page.charts()}'
    etag = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Snapshot(page, state, words, written, f'{text}, "etag": "{etag}"}}', etag)


def is_ready(folder: Path) -> bool:
    """Whether a report can show anything of it: a step was written, or it is a balance."""
    try:
        return RunDirectory(folder).metrics_file.stat().st_size > 0
    except OSError:
        return is_balance(folder)


def is_finished(folder: Path) -> bool:
    """Whether nothing more is to be expected. A log of `attach()` never says so."""
    if is_comparison(folder):
        found = read_json(folder / COMPARISON)
        parts = [found.get(key) if isinstance(found, dict) else None for key in ("methods", "seeds", "runs")]
        methods, seeds, runs = (len(part) if isinstance(part, list) else 0 for part in parts)
        return 0 < methods * seeds <= runs
    if is_balance(folder):
        return (folder / "results.json").is_file()
    return RunDirectory(folder).done


def _progress(folders: Sequence[Path]) -> str:
    """How far they are, in words."""
    parts = []
    for folder in folders:
        name = f"{folder.resolve().name}: " if len(folders) > 1 else ""
        if is_balance(folder):
            nodes = [path for path in (folder / "nodes").glob("*") if path.is_dir()]
            done = sum(RunDirectory(node).done for node in nodes)
            parts.append(f"{name}{done} of {len(nodes)} runs begun are trained")
        else:
            step = RunDirectory(folder).last_step()
            parts.append(f"{name}no step yet" if step is None else f"{name}step {step:,}")
    return "; ".join(parts)


def _waiting(folders: Sequence[Path]) -> Page:
    lines = []
    for folder in folders:
        if not folder.exists():
            why = "does not exist yet"
        elif RunDirectory(folder).recipe_file.is_file():
            why = "has begun; no step is written yet"
        else:
            why = "has no metrics.jsonl yet"
        lines.append(f"<li><strong>{safe(str(folder))}</strong> {why}.</li>")
    body = tag("p", "This page shows the report as soon as a first step is written.") + f"<ul>{''.join(lines)}</ul>"
    names = ", ".join(folder.name for folder in folders)
    return Page("Balance report", names, "Nothing to show yet.", [Section("waiting", "Waiting", body)], [])


def _unreadable(folders: Sequence[Path], error: Exception) -> Page:
    kind = "" if isinstance(error, EquipoiseError) else f"{type(error).__name__}: "
    body = tag("p", f"{kind}{error}") + tag("p", "This page shows the report when the files change.", class_="missing")
    names = ", ".join(folder.name for folder in folders)
    return Page("Balance report", names, "Nothing can be shown.", [Section("waiting", "Not readable", body)], [])
