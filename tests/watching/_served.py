"""A server on a free port, and what it answers."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equipoise.watching.live import Live
from equipoise.watching.server import WatchServer


@contextmanager
def served(folders: Sequence[Path], host: str = "127.0.0.1") -> Iterator[WatchServer]:
    """A server that looks at the files at every question, and never waits after a slow one."""
    with WatchServer(Eager(folders), host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Eager(Live):
    """Looks whenever it is asked."""

    def snapshot(self) -> Any:
        self._not_before = 0.0
        return super().snapshot()


def ask(server: WatchServer, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body; underscores in a header's name are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url.rstrip("/") + path, method=method, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def update(server: WatchServer) -> dict[str, Any]:
    status, _, body = ask(server, "/update")
    assert status == 200
    return json.loads(body)
