"""Escaping and templates of the pages."""

from html.parser import HTMLParser

import jinja2
import pytest
from PIL import Image

from pcm_plugin.visualization import SheetEntry, captions_page
from pcm_plugin.visualization.page import concept_bars, render
from pcm_plugin.visualization.report import RunLog, ScoredEntry, TrainingPair, report_page

GRID = (2, 2)
HOSTILE = (
    """</p></pre></style>"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;{{ 1 }}"""
)


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(data)


def an_entry(text=HOSTILE):
    image = Image.new("RGB", (64, 64), "red")
    return SheetEntry(image, text, [text], [(text, 0.75)], [(3, text)], text)


def check_escaped(html, count):
    page = Page(html)
    assert "script" not in page.tags
    assert "onerror" not in dict(page.attributes)
    assert sum(HOSTILE in text for text in page.texts) == count


def test_captions_and_file_names_are_text():
    # Page title twice, then title, caption, reference and concept of the card.
    html = captions_page([an_entry()], GRID, HOSTILE)
    check_escaped(html, 6)
    assert ("alt", HOSTILE) in Page(html).attributes
    image = Image.new("RGB", (64, 64), "red")
    scores = {"step": 1, f"caption/{HOSTILE}": 1.0, "caption/CIDEr": 2.0}
    run = RunLog([], [scores], {HOSTILE: {f"a/{HOSTILE}": 2.0}})
    html = report_page(
        HOSTILE,
        run,
        HOSTILE,
        GRID,
        "epoch_1.pth",
        [ScoredEntry(an_entry(), 1.0)],
        low=[TrainingPair(image, HOSTILE, 0.1)],
        notes=[HOSTILE],
    )
    # Title twice, note, folder of the test, 2 metrics, legend of the chart, config, 4 of the
    # sample, 1 of the pair.
    check_escaped(html, 13)


def test_fragments_of_the_web_ui_are_text():
    check_escaped(render("webui_caption.html", caption=HOSTILE), 1)
    check_escaped(render("webui_title.html", title=HOSTILE), 1)
    check_escaped(render("webui_concepts.html", concepts=concept_bars(an_entry())), 1)
    check_escaped(render("webui_beam.html", head=[HOSTILE], rows=[[HOSTILE, -1.234]]), 2)
    assert render("webui_concepts.html", concepts=[]).strip() == ""
    note = {"hint": False, "file": HOSTILE, "replaced": HOSTILE, "unknown": [HOSTILE, HOSTILE]}
    check_escaped(render("webui_correction.html", **note), 2)
    broken = [{"name": HOSTILE, "error": HOSTILE}]
    progress = {"total": 2, "done": 1, "cancelled": False, "broken": broken}
    check_escaped(render("webui_progress.html", **progress), 1)


def test_templates_reject_missing_values():
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render("captions.html", cards=[])
    with pytest.raises(jinja2.UndefinedError, match="caption"):
        render("webui_caption.html")


def test_equal_input_gives_an_equal_page():
    assert captions_page([an_entry()], GRID, "a") == captions_page([an_entry()], GRID, "a")
