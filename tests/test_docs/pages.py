"""Markdown pages of the repository, split into the parts that the tests check."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("configs/**/*.md"),
        *ROOT.glob("pcm_plugin/**/*.md"),
    ]
)
"""All pages that are part of the documentation."""

_FENCE = re.compile(r"^```([\w{}]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"^<!-- (\S+): [^>]+ -->.*?^<!-- end of \1 -->", re.DOTALL | re.MULTILINE)


def page_id(page: Path) -> str:
    """Return the path of a page below the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, language: str | None = None) -> list[str]:
    """Return the code blocks of a page, or those of one language."""
    blocks = _FENCE.findall(page.read_text())
    return [code for name, code in blocks if language is None or name == language]


def inline_code(page: Path) -> list[str]:
    """Return the inline code of a page."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text()))


def links(page: Path) -> list[str]:
    """Return the targets of all links and images of a page."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))
    return re.findall(r"\]\(([^()\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub derives from the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose_lines(page: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines of a page that are prose, without inline code.

    Code blocks, tables, headings and tables that a command writes are not prose.
    """
    text = page.read_text()
    for pattern in (_FENCE, _GENERATED):
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith(("|", "#", "<!--")):
            yield number, re.sub(r"`[^`]*`", "`code`", line)
