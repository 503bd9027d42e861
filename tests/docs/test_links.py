"""No link of the README or of the documentation leads nowhere; no other host is asked (links are only read)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import _pages
import pytest

EVERYTHING = [(page, link) for page in _pages.PAGES for link in _pages.links(page)]


@pytest.mark.parametrize(("page", "link"), EVERYTHING, ids=[f"{page.name}-{link}" for page, link in EVERYTHING])
def test_link_leads_somewhere(page: Path, link: str) -> None:
    address = urlsplit(link)
    if address.scheme:
        assert address.scheme == "https", f"{page.name}: {link}"
        assert "." in address.netloc, f"{page.name}: {link}"
        return
    target = (page.parent / address.path).resolve() if address.path else page
    assert target.exists(), f"{page.name}: {link}: there is no {target.name}"
    assert target.is_relative_to(_pages.ROOT), f"{page.name}: {link} leads out of the project"
    if address.fragment and target.suffix == ".md":
        assert address.fragment in _pages.anchors(target), f"{page.name}: {link}: no such heading"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (_pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    missing = [page.name for page in _pages.PAGES if page.parent.name == "docs" and f": {page.name}" not in navigation]
    assert not missing


def test_a_dead_anchor_would_be_seen() -> None:
    anchors = _pages.anchors(_pages.ROOT / "docs" / "settings.md")
    assert "train.learning_rate" in anchors
    assert "train.learning_rates" not in anchors
