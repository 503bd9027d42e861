"""What mkdocs does besides: two pages are filled from the code that they describe, and links keep to the site.

A page holds a mark, `<!-- generated: NAME -->`, where the text of NAME goes. On GitHub, where nothing is filled in, a
line of the page says where to look. A link that leaves docs/ (to the source, to LICENSE) is right on GitHub and leads
nowhere on the site: there it becomes its text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import commands_page
import settings_page

GENERATED = {"settings": settings_page.page, "commands": commands_page.page}
MARK = re.compile(r"<!-- generated: (\w+) -->")
ONLY_ON_GITHUB = re.compile(r"<!-- on GitHub -->.*?<!-- end -->\n*", re.DOTALL)
LEAVES = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./(?!README\.md)[^)]*\)")


def filled(markdown: str) -> str:
    """A page's Markdown as the site shows it."""
    markdown = MARK.sub(lambda mark: GENERATED[mark[1]](), ONLY_ON_GITHUB.sub("", markdown))
    markdown = re.sub(r"\]\(\.\./README\.md(?:#[^)]*)?\)", "](index.md)", markdown)
    return LEAVES.sub(r"\1", markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls it for each page."""
    return filled(markdown)
