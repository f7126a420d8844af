"""Tests of the web UI in a browser."""

import importlib.util
import json
import socket
import time
import urllib.request

import pytest
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes
from tests.browser import open_browser
from tests.test_tools.commands import start

MODEL = "pcm-net_toy"
PATIENCE = 30


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of the page of a running server."""
    # Not imported, which would take seconds.
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("no gradio here")
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    [server] = start(
        "webui",
        *(MODEL, "--port", port, "--device", "cpu"),
        log=log,
        env={"GRADIO_TEMP_DIR": str(folder / "uploads"), "OMP_NUM_THREADS": "1"},
    )
    try:
        # The first command of a test run takes longest.
        until(lambda: server.exitcode is not None or "Serving at" in read(log), patience=100)
        assert server.exitcode is None, read(log)
        yield read(log).split("Serving at ")[1].split()[0]
    finally:
        server.kill()
        server.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, address):
    """The opened page; the logs of the browser are empty."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)
    return browser


@pytest.fixture(scope="module")
def inferencer():
    return CaptionInferencer(MODEL, device="cpu", show_progress=False)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "toy.png"
    [_, scene] = unseen_scenes(2, minimum=2)
    render(scene, 0).image.save(path)
    return path


def until(condition, patience=PATIENCE):
    end = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)
    return result


def read(log):
    return log.read_text() if log.exists() else ""


def texts(page, selector):
    # Read in one script, since the page replaces its elements at any time.
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())"
    return page.execute_script(script, selector)


def upload(page, path):
    [field] = until(lambda: page.find_elements("css selector", "#image input[type=file]"))
    field.send_keys(str(path))


def shown_caption(page):
    [caption] = until(lambda: texts(page, "#caption p:not(.hint)"))
    return caption


def beam(captions):
    numbers = ("log_prob", "score")
    return [
        text
        for c in captions
        for text in (c["caption"], *(f"{c[key]:.2f}" for key in numbers if key in c))
    ]


def width_of_mix(page):
    return page.execute_script("return document.querySelector('#mixup img')?.naturalWidth")


def test_an_image_gets_captions_concepts_and_mixed_patches(page, address, picture, inferencer):
    [expected] = inferencer(picture, num_captions=3)["predictions"]
    upload(page, picture)
    assert shown_caption(page) == expected["caption"]
    assert texts(page, "#beam td") == beam(expected["captions"])
    concepts = [(c["concept"], f"{100 * c['probability']:.0f} %") for c in expected["concepts"]]
    assert concepts
    bars = texts(page, "#concepts .bar span")
    assert list(zip(bars[::2], bars[1::2], strict=True)) == concepts
    assert until(lambda: width_of_mix(page)) > 0

    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"].endswith("BeSent")]
    assert any(url.startswith(address) for url in asked)
    assert [u for u in asked if not u.startswith((address, "data:", "blob:", "chrome"))] == []


def test_the_controls_change_the_captions(page, picture, inferencer):
    upload(page, picture)
    before = shown_caption(page)
    settings = {
        "Beam size": 5,
        "Number of captions (at most the beam size)": 4,
        "Minimum words": 9,
        "Maximum words (with the stop token)": 18,
        "Length penalty (higher values favor longer captions)": 1.5,
    }
    assert texts(page, "#start") in ([], [""])  # folded
    page.find_element("css selector", "#advanced button").click()
    until(lambda: any(texts(page, "#start")))
    for name, value in settings.items():
        [field] = page.find_elements("css selector", f"input[aria-label='number input for {name}']")
        field.clear()
        field.send_keys(f"{value}\t")
    words = {"start": "there", "include": "dog, a red", "exclude": "and", "suffix": ", drawn"}
    for name, value in words.items():
        [field] = page.find_elements("css selector", f"#{name} textarea, #{name} input")
        field.send_keys(f"{value}\t")
    page.find_element("css selector", "#go").click()
    search = dict(beam_size=5, num_captions=4, min_len=9, max_len=18, length_penalty=1.5)
    search |= words | {"include": ["dog", "a red"], "exclude": ["and"]}
    [expected] = inferencer(picture, **search)["predictions"]
    assert expected["caption"] != before
    until(lambda: texts(page, "#beam td") == beam(expected["captions"]))
    assert shown_caption(page) == expected["caption"]


def test_an_invalid_image_shows_an_error_and_the_page_still_works(page, picture, tmp_path):
    upload(page, picture)
    shown_caption(page)
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    upload(page, broken)
    [message] = until(lambda: texts(page, ".toast-body"))
    assert "broken.png cannot be captioned: it is not an image" in message
    assert texts(page, "#caption p:not(.hint)") == []
    assert texts(page, "#beam td") == []
    upload(page, picture)
    assert shown_caption(page)


def test_files_of_the_server_cannot_be_read(address, picture):
    image = {"path": str(picture), "orig_name": "x"}
    request = {
        "data": [image, 3, 3, 0, 20, 0, "", "", "", "", ""],
        "fn_index": 0,
        "session_hash": "x",
    }
    join = urllib.request.Request(
        f"{address}gradio_api/queue/join",
        json.dumps(request).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(join, timeout=PATIENCE).close()
    data = f"{address}gradio_api/queue/data?session_hash=x"
    with urllib.request.urlopen(data, timeout=PATIENCE) as stream:
        answer = stream.read().decode()
    assert "x cannot be captioned: it was not uploaded to this server" in answer


def test_uploads_are_decoded_as_image_viewers_do(picture, inferencer, tmp_path):
    """Broken EXIF data, colors of transparent pixels, and errors; without a browser."""
    gradio = pytest.importorskip("gradio")
    from pcm_plugin.commands.web_page import make_handler

    show = make_handler(inferencer, tmp_path)

    def caption(name):
        upload = {"path": str(tmp_path / name), "orig_name": f"<{name}>"}
        *_, (html, *_) = show(upload, 3, 1, 0, 20, 0, "", "", "", "", "")
        return html

    with Image.open(picture) as image:
        image.load()
    image.save(tmp_path / "exif.png", exif=b"Exif\0\0\0\x08\0\x02\x01\x12\0\x03")
    assert caption("exif.png") == caption(picture.name)
    Image.new("RGB", image.size, "white").save(tmp_path / "white.png")
    image.putalpha(0)
    image.save(tmp_path / "hidden.png")
    assert caption("hidden.png") == caption("white.png") != caption(picture.name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "white.png").read_bytes()[:60])
    with pytest.raises(gradio.Error, match=r"&lt;broken.png&gt; cannot be captioned: it cannot be"):
        caption("broken.png")
