"""Links from the documentation to other files of the repository.

Pages link to each other by relative paths, so that the links also work where the repository is
browsed. Pages outside of ``docs/`` (:func:`list_copies`) become part of the site as copies, other
files are downloads, and a link to a folder becomes its text.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^()\s]+)\)")


def list_copies() -> dict[Path, str]:
    """Return the pages outside of ``docs/`` that the site contains, with their document names."""
    copies = {ROOT / f"{name}.md": name.lower() for name in ("CHANGELOG", "CONTRIBUTING")}
    copies |= {page: f"systems/{page.parent.name}" for page in ROOT.glob("configs/*/README.md")}
    assets = ROOT / "pcm_plugin" / "toyworld" / "assets"
    copies |= {page: f"toy_world/{page.parent.name}" for page in assets.glob("*/README.md")}
    return {page: f"generated/{name}" for page, name in sorted(copies.items()) if page.is_file()}


def rewrite_links(text: str, page: Path, docname: str, copies: dict[Path, str]) -> str:
    """Return the text of a page with its links changed to those of the site.

    Args:
        text: Content of the page.
        page: File of the repository that contains the text.
        docname: Name of the page in the site.
        copies: Document names of pages outside of ``docs/``.
    """
    folder = (DOCS / docname).parent

    def rewrite(match: re.Match) -> str:
        image, label, link = match.groups()
        file, _, anchor = link.partition("#")
        if not file or re.match(r"\w+:", link):
            return match[0]
        target = (page.parent / file).resolve()
        if target.is_dir():
            return label
        if target in copies:
            target = DOCS / f"{copies[target]}.md"
        path = os.path.relpath(target, folder) + (f"#{anchor}" if anchor else "")
        return f"{image}[{label}]({path})"

    parts = []
    end = 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(rewrite, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(rewrite, text[end:])])


def write_copies(app: Sphinx) -> None:
    """Write the copies that have changed."""
    copies = list_copies()
    for page, docname in copies.items():
        text = rewrite_links(page.read_text(), page, docname, copies)
        copy = Path(app.srcdir, f"{docname}.md")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.is_file() or copy.read_text() != text:
            copy.write_text(text)


def rewrite_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Rewrite the links of a page of ``docs/`` when Sphinx reads it."""
    if not docname.startswith("generated/"):
        source[0] = rewrite_links(source[0], DOCS / f"{docname}.md", docname, list_copies())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register this extension."""
    app.connect("builder-inited", write_copies)
    app.connect("source-read", rewrite_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
