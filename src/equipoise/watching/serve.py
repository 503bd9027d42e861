"""`equipoise watch` from its first line to Ctrl-C."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from equipoise.watching.live import Live
from equipoise.watching.server import WatchServer, check_folders, is_loopback


def serve(folders: Sequence[Path], host: str, port: int, console: Console, show: bool = False) -> None:
    """Serve until the user interrupts.

    Args:
        folders: run directories, or one balance; they need not exist yet.
        host, port: where to listen.
        console: for the address.
        show: open a browser on it.

    Raises:
        RunError: the folders cannot be shown, or the port cannot be had.
    """
    check_folders(folders)
    with WatchServer(Live(folders), host, port) as server:
        names = ", ".join(map(str, folders))
        console.print(f"watching {names}: {server.url}  (Ctrl-C ends)", highlight=False, soft_wrap=True)
        if not is_loopback(host):
            console.print(f"whoever reaches {host} can read it", highlight=False)
        if show:
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
