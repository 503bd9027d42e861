"""What a Ray worker does with a node: run it where the results are, if it sees that folder, else beside, and send them.

Nothing heavy is imported above: the libraries read their settings from the environment as they are imported.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

from equipoise.quiet import quieten

#: In the folder of all results: what tells it from another machine's folder of the same name.
IDENTITY = ".id"
PIECE = 32 * 2**20  # bytes


@dataclass(frozen=True)
class Piece:
    """A part of a file, on its way to the results.

    Attributes:
        path: below the folder of all results.
        content: what follows the piece of this file before it.
    """

    path: str
    content: bytes


@dataclass(frozen=True)
class End:
    """All has been sent.

    Attributes:
        failure: why the node failed, as a line; None where it did not.
        held: who has the node's lock and shows no life; None where nobody does.
        sent: whether files were sent; they are where they belong otherwise.
    """

    failure: str | None
    held: str | None
    sent: bool


def run_node_here(text: str, identity: str, shares: bool = True) -> Iterator[Piece | End]:
    """Run a node on this machine.

    Args:
        text: of `execution.Work`.
        identity: of the folder of all results.
        shares: whether a folder of that identity is worked in; otherwise, and where there is none, the node is run in
            this machine's cache, where a later try finds what an earlier one left, and is sent.
    """
    quieten()
    from equipoise.balancing.execution import Work
    from equipoise.console import PlainConsole
    from equipoise.errors import EquipoiseError
    from equipoise.locks import Held
    from equipoise.packages import cache_folder

    work = Work.from_json(text)
    root = work.folder.parent.parent
    shared = shares and _identity(root) == identity
    if not shared:
        root = cache_folder() / "balance" / identity / work.folder.name
        work = replace(work, folder=root / "nodes" / work.folder.name)
    work.log.parent.mkdir(parents=True, exist_ok=True)
    failure = held = None
    with work.log.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            work.run(PlainConsole(file=log, width=120))
        except Held as error:
            held = str(error)
        except EquipoiseError as error:
            failure = str(error)
        except Exception as error:
            traceback.print_exc()
            failure = f"it failed: {type(error).__name__}: {error}".splitlines()[0]
    sends = not shared and held is None  # what another has in its hands is not ours to send
    if sends:
        for folder in (work.folder, work.log.parent):
            yield from _pieces(root, folder)
    yield End(failure, held, sends)
    # The next lines run when the receiver has asked for what follows: it has everything.
    if sends and failure is None:
        shutil.rmtree(root, ignore_errors=True)


def _identity(root: Path) -> str | None:
    try:
        return (root / IDENTITY).read_text(encoding="utf-8")
    except OSError:
        return None


def _pieces(root: Path, folder: Path) -> Iterator[Piece]:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(root).as_posix()
        with file.open("rb") as opened:
            yield Piece(name, opened.read(PIECE))  # also of an empty file
            while content := opened.read(PIECE):
                yield Piece(name, content)
