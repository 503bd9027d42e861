"""The report of a run that goes on, on a page that updates itself: a small HTTP server for one reader's own browser.

It answers two paths, `/` and `/update`, from what is in memory; no part of a request ever becomes a path of the disk.
It listens on the loopback address unless told otherwise, and refuses requests whose Host is not this machine by name or
number: a web page elsewhere that lets its own name point here (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
import socketserver
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from equipoise.errors import RunError
from equipoise.report.balance.view import is_balance
from equipoise.report.comparison.view import is_comparison
from equipoise.report.skeleton import LIVE_POLICY, LivePart
from equipoise.watching.live import Live, Snapshot
from equipoise.watching.script import BANNER, SCRIPT

PORT = 8765

# As in the page itself, and besides: nobody frames it, which a page cannot say of itself.
POLICY = f"{LIVE_POLICY}; frame-ancestors 'none'"


class WatchServer(ThreadingHTTPServer):
    """Serves one `Live`.

    Args:
        live: what is served.
        host, port: where to listen; port 0 takes a free one.

    Raises:
        RunError: it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, live: Live, host: str = "127.0.0.1", port: int = PORT):
        self.live = live
        self.host = host
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.names = {host.lower(), "localhost", *([] if is_loopback(host) else [socket.gethostname().lower()])}
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            why = (
                "is in use"
                if getattr(error, "errno", None) == errno.EADDRINUSE
                else f"cannot be used ({_words(error)})"
            )
            raise RunError(f"port {port} of {host} {why}; --port names another, 0 takes any free one") from None

    def server_bind(self) -> None:
        """As HTTPServer's, without asking a name server who we are."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def answers_to(self, host: str | None) -> bool:
        """Whether a request's Host header names this machine; the port is free, for it may come through a tunnel.

        A number cannot be rebound; only where more than loopback is served is any of them allowed.
        """
        if not host:
            return False
        name = host.strip().lower()
        name = name[1 : name.index("]")] if name.startswith("[") and "]" in name else name.partition(":")[0]
        if name in self.names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or not is_loopback(self.host)
        except ValueError:
            return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who closes his browser is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # a connection that says nothing is closed

    def do_GET(self) -> None:
        if not self.server.answers_to(self.headers.get("Host")):
            self._send(403, "this server answers to localhost alone\n", "text/plain")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._send(200, page(self.server.live.snapshot()), "text/html")
        elif path == "/update":
            self._update(self.server.live.snapshot())
        else:
            self._send(404, "there is nothing here but /\n", "text/plain")

    def _update(self, found: Snapshot) -> None:
        tag = f'"{found.etag}"'
        age = age_of(found)
        extra = {"ETag": tag, **({} if age is None else {"X-Age": f"{age:.1f}"})}
        if tag in (self.headers.get("If-None-Match") or ""):
            self._send(304, None, None, extra)
        else:
            self._send(200, found.update, "application/json", extra)

    def _refuse(self) -> None:
        self._send(405, "GET alone is answered\n", "text/plain", {"Allow": "GET"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = _refuse

    def _send(self, status: int, text: str | None, kind: str | None, extra: dict[str, str] | None = None) -> None:
        body = (text or "").encode()
        self.close_connection = True  # one question each few seconds: an open connection would hold a thread
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if text is not None:
            self.send_header("Content-Length", str(len(body)))
        headers = {
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **(extra or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "equipoise"

    def log_message(self, format: str, *args: Any) -> None:
        pass  # a line for each question of the page would bury the terminal


def page(found: Snapshot) -> str:
    """The whole page at a state, with the script that goes on from there."""
    begun = {"etag": found.etag, "state": found.state, "progress": found.progress, "age": age_of(found)}
    data = json.dumps(begun).replace("<", "\\u003c")
    element = f'<script type="application/json" id="update">{data}</script>\n'
    return found.page.text(LivePart(BANNER, element, SCRIPT))


def age_of(found: Snapshot) -> float | None:
    """Seconds since anything was written; the reader's clock may be another machine's."""
    return None if found.written is None else max(0.0, time.time() - found.written)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_folders(folders: Sequence[Path]) -> None:
    """Check what is asked for, as far as it can be known before it exists.

    Raises:
        RunError: a file, or a balance or comparison beside other folders.
    """
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file; allowed are run directories, or one folder of `balance` or `compare`")
    balances = [folder for folder in folders if is_balance(folder) or is_comparison(folder)]
    if balances and len(folders) > 1:
        kind = "comparison" if is_comparison(balances[0]) else "balance"
        raise RunError(f"{balances[0]} is a {kind} and has a page of its own; found {len(folders)} folders")


def _words(error: BaseException) -> str:
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else str(error)
