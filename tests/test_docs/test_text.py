"""Links, file names and line breaks of the documentation."""

import re

import pytest

from tests.test_docs.pages import PAGES, ROOT, anchors, inline_code, links, page_id, prose_lines

# A file of the repository that a page names by its path.
_FILE = re.compile(
    r"(?:configs|tools|tests|benchmarks|docs|pcm_plugin)/[\w/.-]+\.(?:py|sh|md|txt|safetensors)"
)
# The end of a sentence inside a line.
_SENTENCE_END = re.compile(r"(?<!\bal)(?<!\bvs)[.!?][*_)]* +(?=[*_(\[]{0,2}(?:[A-Z]|`))")
# "**Topic.** The first sentence", also in a list.
_RUN_IN_HEADING = re.compile(r"^\s*(?:- |\d+\. )?(?:\*\*[^*]+\*\*|\*[^*]+\*)? *")

pages = pytest.mark.parametrize("page", PAGES, ids=page_id)


@pages
def test_links_resolve(page):
    for link in links(page):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page_id(page)} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page_id(page)} links to {link}"


@pages
def test_files_exist(page):
    for code in inline_code(page):
        for file in _FILE.findall(code):
            assert (ROOT / file).exists(), f"{page_id(page)} names {file}"


@pages
def test_each_sentence_has_a_line(page):
    """A change of one sentence is then a change of one line."""
    found = [
        f"{number}: {line}"
        for number, line in prose_lines(page)
        if _SENTENCE_END.search(_RUN_IN_HEADING.sub("", line))
    ]
    assert not found, f"{page_id(page)}: start a new line after each sentence\n" + "\n".join(found)
