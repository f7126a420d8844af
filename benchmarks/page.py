"""Tables between two marked lines of a page."""

import sys
from pathlib import Path


def read_marked(page: Path, begin: str, end: str) -> tuple[str, str]:
    """Return what stands before and after the marked part; exit if a mark is missing."""
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        sys.exit(f"{page} has no lines {begin} and {end}: put them where the table belongs")
    return before, after


def write_marked(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the marked part; exit if a mark is missing."""
    before, after = read_marked(page, begin, end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
