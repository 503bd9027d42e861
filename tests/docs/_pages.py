"""The documentation's pages, taken apart: fenced blocks with where they stand, headings' anchors, links."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from docs_hooks import filled  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\s*$")
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"`[^`\n]*`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `reason` is why it is not run, where the page says so in a comment above it."""

    page: Path
    line: int
    language: str
    body: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All blocks in one of these languages, page by page."""
    return [block for page in PAGES for block in blocks_of(page) if block.language in languages]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        before = text[: fence.start()]
        mark = NOT_RUN.search(before)
        language = (fence["info"].split() or [""])[0]
        body = re.sub(f"^{fence['indent']}", "", fence["body"], flags=re.MULTILINE)
        yield Block(page, before.count("\n") + 1, language, body, mark["reason"] if mark else None)


def prose(page: Path) -> str:
    """A page as the site shows it, without what stands in code."""
    text = page.read_text(encoding="utf-8")
    if page.parent.name == "docs":
        text = filled(text) if page.name in ("settings.md", "commands.md") else text
    return CODE.sub("", FENCE.sub("", text))


def links(page: Path) -> list[str]:
    return [link["target"] for link in LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """The ids that a page has: of its headings, and those written out by attribute lists."""
    text = page.read_text(encoding="utf-8")
    shown = FENCE.sub("", filled(text) if page.parent.name == "docs" else text)
    written = set(re.findall(r"\{ ?#([\w.-]+) ?\}", shown))
    headings = re.findall(r"^#{1,6} +(.+?)(?: *\{ ?#[^}]*\})?$", shown, re.MULTILINE)
    return written | {slugify(re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading), "-") for heading in headings}
