import json
import math

import numpy as np
import pytest
from PIL import Image

from pcm_plugin.visualization import SheetEntry, captions_page
from pcm_plugin.visualization.report import (
    ScoredEntry,
    TrainingPair,
    choose_samples,
    read_run,
    report_page,
)
from tests.browser import check_page, open_browser

GRID = (2, 2)


def log(work, time, *rows, rest=""):
    folder = work / time / "vis_data"
    folder.mkdir(parents=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "scalars.json").write_text("".join(lines) + rest)


@pytest.fixture
def work(tmp_path):
    """Work folder of a run that was killed in its second epoch and resumed."""
    log(
        tmp_path,
        "20260101_000000",
        {"loss": 3.0, "step": 10},
        {"loss": 2.0, "step": 20},
        {"caption/CIDEr": 50.0, "caption/BLEU-4": 20.0, "step": 1},
        {"loss": 1.9, "step": 30},
        rest='{"loss": 1.',
    )
    log(
        tmp_path,
        "20260101_010000",
        {"loss": 1.8, "step": 30},
        {"loss": 1.5, "step": 40},
        {"caption/CIDEr": 60.0, "caption/BLEU-4": 21.0, "step": 2},
    )
    folder = tmp_path / "test" / "town"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"caption/CIDEr": 61.25}}))
    return tmp_path


def picture(color):
    return Image.new("RGB", (64, 64), color)


def test_logs_of_a_resumed_run_are_merged(work):
    run = read_run(work)
    assert [(row["step"], row["loss"]) for row in run.train] == [
        (10, 3.0),
        (20, 2.0),
        (30, 1.8),
        (40, 1.5),
    ]
    assert [row["caption/CIDEr"] for row in run.validation] == [50.0, 60.0]
    assert run.tests == {"test/town": {"caption/CIDEr": 61.25}}


def test_a_folder_without_logs_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not the work folder of a training"):
        read_run(tmp_path)


def test_a_damaged_score_file_is_rejected(work):
    (work / "test" / "town" / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json contains no scores"):
        read_run(work)


def test_samples_are_the_best_median_and_worst():
    scores = [30, 10, 90, 50, 70, 20, 60, 80, 40]
    assert choose_samples(scores, 2) == [2, 7, 6, 3, 5, 1]
    assert choose_samples(scores, 3) == [2, 7, 4, 6, 3, 8, 0, 5, 1]
    assert choose_samples([1, 2], 3) == [1, 0]


def test_the_report_shows_everything_without_other_files(work, tmp_path):
    entries = [
        SheetEntry(picture("red"), "<b>best</b>", ["a & b"], [("dog", 0.75)], [(3, "dog")], "one"),
        SheetEntry(picture("green"), "median", title="two"),
        SheetEntry(picture("blue"), "worst", title="three"),
    ]
    samples = [ScoredEntry(e, c) for e, c in zip(entries, (300.0, 50.0, 0.0), strict=True)]
    text = report_page(
        "my run",
        read_run(work),
        "model = dict(type='<PCMNet>')",
        GRID,
        "best_caption_CIDEr_epoch_2.pth",
        samples,
        np.random.default_rng(0).normal(1.4, 0.2, 500),
        [TrainingPair(picture("gray"), "a bad pair", 0.3)],
        [TrainingPair(picture("white"), "a good pair", 1.9)],
        ["a note"],
    )
    for shown in (
        "<h1>my run</h1>",
        "validation, epoch 2",
        "61.25",
        "one · CIDEr 300.0",
        "&lt;b&gt;best&lt;/b&gt;",
        "a &amp; b",
        "75 %",
        "CLIP score 0.300",
        "CLIP score 1.900",
        "a note",
        "&lt;PCMNet&gt;",
    ):
        assert shown in text
    headings = ["Best captions by CIDEr", "Captions around the median", "Worst captions by CIDEr"]
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert text.count("<svg") == 3
    path = tmp_path / "page.html"
    path.write_text(text)
    with open_browser(tmp_path / "profile") as browser:
        check_page(browser, path)


def test_undefined_scores_are_shown_as_a_dash(work):
    log(work, "20260101_020000", {"caption/CIDEr": math.nan, "caption/BLEU-4": 22.0, "step": 3})
    scores = {"caption/CIDEr": None, "caption/BLEU-4": 30.5}
    (work / "test" / "town" / "metrics.json").write_text(json.dumps({"metrics": scores}))
    samples = [ScoredEntry(SheetEntry(picture("red"), "a dog", title="one"), math.nan)]
    best = "best_caption_CIDEr_epoch_3.pth"
    text = report_page("my run", read_run(work), "", GRID, best, samples)
    assert "30.50" in text
    assert text.count("<td>-</td>") == 2
    assert "one · CIDEr undefined" in text
    assert ">nan<" not in text


def test_the_captions_page_needs_no_other_files(tmp_path):
    entry = SheetEntry(picture("red"), "a dog", (), [("dog", 0.9)], [(0, "dog")], "a.png")
    path = tmp_path / "page.html"
    path.write_text(captions_page([entry] * 5, GRID, "Captions"))
    with open_browser(tmp_path / "profile") as browser:
        check_page(browser, path)
        assert len(browser.find_elements("css selector", ".card")) == 5
