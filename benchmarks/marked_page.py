"""Generated sections of a Markdown page, between two marker lines."""

import sys
from pathlib import Path


def read_marked(page: Path, begin: str, end: str) -> tuple[str, str]:
    """Return the text before and after the section; exit if a marker is missing."""
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        sys.exit(f"{page} must have the lines {begin} and {end}: add them where the table belongs")
    return before, after


def write_marked(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the section; exit if a marker is missing."""
    before, after = read_marked(page, begin, end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
