"""The site builds without a warning, and no page of it asks anything of another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import _pages
import pytest

#: What a browser loads by itself; a link that a reader may follow is not among it.
LOADS = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}


class Loads(HTMLParser):
    """The addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(LOADS.get(tag, ""))
        if address:
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=_pages.ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr, done.stderr[-3000:]
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in (_pages.ROOT / "docs").glob("*.md")}
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        outside = [address for address in loads.addresses if re.match(r"(?:https?:)?//", address)]
        assert not outside, f"{page.name}: {outside}"


def test_styles_load_nothing_from_elsewhere(site: Path) -> None:
    styles = sorted(site.rglob("*.css"))
    assert styles
    for style in styles:
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//", text), style.name


def test_generated_pages_are_filled(site: Path) -> None:
    settings = (site / "settings.html").read_text(encoding="utf-8")
    assert 'id="train.learning_rate"' in settings
    assert "generated:" not in settings
    assert "equipoise balance RECIPE" in (site / "commands.html").read_text(encoding="utf-8")
    assert "BalancedTrainer" in (site / "api.html").read_text(encoding="utf-8")
