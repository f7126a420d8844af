"""Tests of captions of points in the web UI, in a browser."""

import pytest

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes
from tests.browser import open_browser
from tests.test_tools.test_webui import click, shown_caption, texts, until, upload

HINT = "Click a point of the image to caption it."


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def serve(captioner, tmp_path, monkeypatch):
    """Return a running server in this process, and its address."""
    pytest.importorskip("gradio")
    from pcm_plugin.commands.web_limits import UploadLimits
    from pcm_plugin.commands.web_page import build_page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    server = build_page(captioner, "title", [], None, UploadLimits())
    _, address, _ = server.launch(quiet=True, prevent_thread_lock=True, ssr_mode=False)
    return server, address


def click_image(page, x, y):
    """Click the image at shares of its width and height."""
    from selenium.webdriver import ActionChains

    image = until(lambda: page.find_elements("css selector", "#image img"))[0]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
    # The image is shown with its aspect ratio in the center of its element.
    side = min(image.size["width"], image.size["height"])
    place = round((x - 0.5) * side), round((y - 0.5) * side)
    ActionChains(page).move_to_element_with_offset(image, *place).click().perform()


def test_a_click_captions_the_point(browser, decap_file, tmp_path, monkeypatch):
    inferencer = CaptionInferencer(weights=decap_file, device="cpu", show_progress=False)
    picture = tmp_path / "toy.png"
    render(unseen_scenes(1)[0], 0).image.save(picture)
    server, address = serve(inferencer, tmp_path, monkeypatch)
    try:
        browser.get(address)
        until(lambda: texts(browser, "#point p") == [HINT])
        upload(browser, picture)
        shown_caption(browser)
        for x, y in ((0.25, 0.75), (0.8, 0.1)):
            before = texts(browser, "#point p")
            click_image(browser, x, y)
            [shown] = until(
                lambda before=before: (now := texts(browser, "#point p")) != before and now
            )
            place, _, caption = shown.removeprefix("at ").partition(": ")
            point = [int(number) for number in place.split(", ")]
            assert point == pytest.approx([112 * x, 112 * y], abs=3)
            [expected] = inferencer.regions(picture, points=[point])
            assert caption == expected["caption"]
        click(
            browser, "#image button[aria-label='Remove Image'], #image button[aria-label='Clear']"
        )
        until(lambda: texts(browser, "#point p") == [HINT])
    finally:
        server.close(verbose=False)


def test_captioners_that_read_patches_offer_no_points(browser, tmp_path, monkeypatch):
    captioner = CaptionInferencer("pcm-net_toy", device="cpu", show_progress=False)
    server, address = serve(captioner, tmp_path, monkeypatch)
    try:
        browser.get(address)
        until(lambda: texts(browser, "#caption p"))
        assert not browser.find_elements("css selector", "#point")
    finally:
        server.close(verbose=False)
