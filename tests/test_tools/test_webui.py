"""Tests of the web UI in a browser."""

import csv
import importlib.util
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes
from tests.browser import open_browser
from tests.test_docs.pages import ROOT, code_blocks
from tests.test_tools.commands import run, start

MODEL = "pcm-net_toy"
PAGE = ROOT / "docs" / "captioning.md"
EXAMPLES = ROOT / "docs" / "images" / "examples"
DECODING = (3, 1, 0, 20, 0, "", "", "", "", "")
PATIENCE = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of the page of a running server, and its file of corrections."""
    # Not imported, which would take seconds.
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("no gradio here")
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    [process] = start(
        "webui",
        *(MODEL, "--port", port, "--device", "cpu"),
        *("--corrections", folder / "corrections.jsonl"),
        *("--max-images", 12, "--max-megabytes", 1, "--max-megapixels", 1),
        log=log,
        env={"GRADIO_TEMP_DIR": str(folder / "uploads"), "OMP_NUM_THREADS": "1"},
    )
    try:
        # The first command of a test run takes longest.
        until(lambda: process.exitcode is not None or "Serving at" in read(log), patience=100)
        assert process.exitcode is None, read(log)
        yield read(log).split("Serving at ")[1].split()[0], folder / "corrections.jsonl"
    finally:
        process.kill()
        process.join()


@pytest.fixture
def address(server):
    return server[0]


@pytest.fixture
def corrections(server):
    """File of corrections, without those of other tests."""
    server[1].unlink(missing_ok=True)
    return server[1]


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


@pytest.fixture
def held_page(browser, inferencer, tmp_path, monkeypatch):
    """The opened page of a server in this process, and a semaphore that admits its batches."""
    pytest.importorskip("gradio")
    from pcm_plugin.commands.web_limits import UploadLimits
    from pcm_plugin.commands.web_page import build_page
    from pcm_plugin.formats.corrections import CorrectionFile

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    batches = threading.Semaphore(0)
    stream = inferencer.stream

    def held_stream(*args, **kwargs):
        assert batches.acquire(timeout=PATIENCE)
        return stream(*args, **kwargs)

    monkeypatch.setattr(inferencer, "stream", held_stream)
    corrections = CorrectionFile(tmp_path / "corrections.jsonl")
    server = build_page(inferencer, "title", [], corrections, UploadLimits())
    try:
        _, address, _ = server.launch(quiet=True, prevent_thread_lock=True, ssr_mode=False)
        browser.get(address)
        yield browser, batches
    finally:
        batches.release(100)
        server.close(verbose=False)


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


def click(page, selector):
    [element] = until(lambda: page.find_elements("css selector", selector))
    until(lambda: element.is_displayed() and element.is_enabled())
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def can_be_clicked(page, selector):
    script = "return document.querySelector(arguments[0])?.disabled"
    return page.execute_script(script, selector) is False


def write(page, selector, text):
    [field] = until(lambda: page.find_elements("css selector", selector))
    field.clear()
    field.send_keys(f"{text}\t")


def value(page, selector):
    script = "return document.querySelector(arguments[0])?.value"
    return page.execute_script(script, selector)


def open_tab(page, name):
    # By a script, since elements move while the page is loaded.
    tab = f"#{name}_tab-button"
    until(lambda: page.find_elements("css selector", tab))
    page.execute_script("document.querySelector(arguments[0]).click()", tab)


def open_folder_tab(page):
    open_tab(page, "folder")
    until(lambda: any(texts(page, "#progress .hint")))


def add_images(page, paths):
    [field] = until(lambda: page.find_elements("css selector", "#images input[type=file]"))
    field.send_keys("\n".join(map(str, paths)))
    until(lambda: len(page.find_elements("css selector", "#images tr.file")) == len(paths))


def downloads(page):
    """Return the texts of the result files by suffix."""
    links = "#results a[href]"
    until(lambda: len(page.find_elements("css selector", links)) == 3)
    urls = [link.get_attribute("href") for link in page.find_elements("css selector", links)]
    result = {}
    for url in urls:
        with urllib.request.urlopen(url, timeout=PATIENCE) as file:
            result[Path(url).suffix] = file.read().decode()
    return result


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


def test_an_example_is_captioned_by_a_click(page, inferencer):
    scenes = unseen_scenes(8)
    images = until(lambda: page.find_elements("css selector", "#examples img"))
    assert len(images) == len(scenes)
    images[1].click()
    [expected] = inferencer([render(scenes[1], 1).image])["predictions"]
    assert shown_caption(page) == expected["caption"]


def test_a_corrected_caption_is_saved_with_its_image(page, picture, corrections):
    upload(page, picture)
    generated = shown_caption(page)
    until(lambda: value(page, "#correction textarea") == generated)
    for text in ("a zebra <b>here</b>", "a dog"):
        write(page, "#correction textarea", text)
        click(page, "#correction_save")
        until(lambda: corrections.exists())
        until(lambda text=text: text.split(" <")[0] in corrections.read_text())
    [note] = until(lambda: [t for t in texts(page, "#correction_note") if "replaces" in t])
    assert "Saved in corrections.jsonl. It replaces the earlier correction “a zebra here”" in note
    [row] = map(json.loads, corrections.read_text().splitlines())
    assert (row["caption"], row["generated"]) == ("a dog", generated)
    assert (row["previous"], row["uploaded_as"]) == (["a zebra here"], picture.name)
    copy = corrections.with_suffix("") / row["file_name"]
    assert copy.read_bytes() == picture.read_bytes()
    write(page, "#correction textarea", "a zebra")
    click(page, "#correction_save")
    [warning] = until(lambda: texts(page, "#correction_note .warning"))
    assert warning == "Not in the captioner's vocabulary: zebra."
    write(page, "#correction textarea", " ")
    click(page, "#correction_save")
    [message] = until(lambda: texts(page, ".toast-body"))
    assert "The correction was not saved: a corrected caption must be a text" in message


def test_a_folder_is_captioned_corrected_and_downloaded(
    page, address, inferencer, tmp_path, corrections
):
    open_folder_tab(page)
    click(page, "#go_all")
    [message] = until(lambda: texts(page, ".toast-body"))
    assert "There are no images: choose a folder or images first" in message
    broken = tmp_path / "<broken>.png"
    broken.write_text("no image")
    files = [*sorted(EXAMPLES.glob("*.png")), broken]
    add_images(page, files)
    click(page, "#go_all")
    until(lambda: "9 of 9 images" in texts(page, "#progress p"))
    assert texts(page, "#progress li") == ["<broken>.png: it is not an image in a supported format"]
    expected = inferencer(files[:-1])["predictions"]
    lines = [f"{Path(row['image']).name}: {row['caption']}" for row in expected]
    until(lambda: texts(page, "#gallery .caption-label") == lines)

    page.find_elements("css selector", "#gallery .thumbnail-item")[2].click()
    field = "#folder_correction textarea"
    until(lambda: value(page, field) == expected[2]["caption"])
    write(page, field, "a pink bed, in a kitchen")
    click(page, "#folder_correction_save")
    until(lambda: texts(page, "#folder_correction_note p"))
    [saved] = map(json.loads, corrections.read_text().splitlines())
    assert saved["caption"] == "a pink bed, in a kitchen"
    assert saved["uploaded_as"] == files[2].name

    tables = downloads(page)
    rows = json.loads(tables[".json"])
    assert [json.loads(line) for line in tables[".jsonl"].splitlines()] == rows
    assert [row["image"] for row in rows] == [path.name for path in files[:-1]]
    assert [row["image_id"] for row in rows] == [path.stem for path in files[:-1]]
    captions = [row["caption"] for row in expected]
    captions[2] = "a pink bed, in a kitchen"
    assert [row["caption"] for row in rows] == captions
    assert rows[2]["log_prob"] is None
    assert rows[0]["log_prob"] == pytest.approx(expected[0]["log_prob"], abs=1e-4)
    table = csv.DictReader(tables[".csv"].splitlines())
    assert [row["caption"] for row in table if row["rank"] == "1"] == captions


def test_a_running_folder_can_be_cancelled(held_page, picture, tmp_path):
    """In the second batch, whose captions are kept; then the server is free for the next image."""
    page, batches = held_page
    files = [tmp_path / f"{n}.png" for n in range(24)]
    for n, file in enumerate(files):
        Image.new("RGB", (300, 300), (n, 0, 0)).save(file)
    open_folder_tab(page)
    add_images(page, files)
    assert not can_be_clicked(page, "#cancel")
    click(page, "#go_all")
    batches.release()
    until(lambda: "8 of 24 images" in texts(page, "#progress p"))
    assert not can_be_clicked(page, "#go_all")
    click(page, "#cancel")
    until(lambda: not can_be_clicked(page, "#cancel"))
    batches.release(100)
    until(lambda: can_be_clicked(page, "#go_all"))
    assert not can_be_clicked(page, "#cancel")
    assert texts(page, "#progress p") == ["Cancelled after 16 images."]
    until(lambda: len(page.find_elements("css selector", "#gallery .thumbnail-item")) == 16)
    assert len(json.loads(downloads(page)[".json"])) == 16
    open_tab(page, "image")
    upload(page, picture)
    assert shown_caption(page)


def test_a_correction_waits_for_the_end_of_a_run(held_page, tmp_path):
    """The next batch would replace the corrected rows."""
    page, batches = held_page
    files = [tmp_path / f"{n}.png" for n in range(9)]
    for n, file in enumerate(files):
        Image.new("RGB", (300, 300), (n, 0, 0)).save(file)
    open_folder_tab(page)
    add_images(page, files)
    click(page, "#go_all")
    batches.release()
    until(lambda: len(page.find_elements("css selector", "#gallery .thumbnail-item")) == 8)
    page.find_elements("css selector", "#gallery .thumbnail-item")[2].click()
    until(lambda: value(page, "#folder_correction textarea"))
    write(page, "#folder_correction textarea", "a pink bed")
    assert not can_be_clicked(page, "#folder_correction_save")
    batches.release(100)
    until(lambda: "9 of 9 images" in texts(page, "#progress p"))
    until(lambda: can_be_clicked(page, "#folder_correction_save"))
    assert value(page, "#folder_correction textarea") == "a pink bed"
    click(page, "#folder_correction_save")
    until(lambda: "2.png: a pink bed" in texts(page, "#gallery .caption-label"))
    captions = [row["caption"] for row in json.loads(downloads(page)[".json"])]
    assert (len(captions), captions[2]) == (9, "a pink bed")


def test_the_documented_calls_of_the_http_api_work(
    address, picture, inferencer, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    picture.rename("photo.jpg")
    *_, block = code_blocks(PAGE, "python")
    variables = {}
    exec(block.replace("http://127.0.0.1:7860", address), variables)
    options = {"beam_size": 5, "num_captions": 3}
    [expected] = inferencer("photo.jpg", exclude=["and"], **options)["predictions"]
    result = variables["result"]
    assert result["image"] == "photo.jpg"
    assert result["captions"] == [
        {"caption": c["caption"], "log_prob": pytest.approx(c["log_prob"], abs=1e-4)}
        for c in expected["captions"]
    ]
    assert result["concepts"]
    assert expected["caption"] in capsys.readouterr().out

    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    [script] = [block for block in code_blocks(PAGE, "bash") if "curl" in block]
    script = script.replace("http://127.0.0.1:7860/", address)
    answer = subprocess.run(["bash", "-ec", script], capture_output=True, check=True, text=True)
    [data] = [line for line in answer.stdout.splitlines() if line.startswith("data: [")]
    [result] = json.loads(data.removeprefix("data: "))
    [expected] = inferencer("photo.jpg", **options)["predictions"]
    assert [c["caption"] for c in result["captions"]] == [
        c["caption"] for c in expected["captions"]
    ]


def test_invalid_requests_to_the_http_api_are_explained(address, picture, tmp_path):
    client = pytest.importorskip("gradio_client")
    connection = client.Client(address, verbose=False)
    for settings, message in (
        ({"beam_size": 11}, "`beam_size` must be at most 10, got `11`"),
        ({"beam_size": "x"}, "`beam_size` must be a number, got `'x'`"),
        ({"max_len": 1000}, "`max_len` must be at most 20, got `1000`"),
        ({"num_captions": 4}, "`num_captions` must be from 1 to beam_size=3"),
        ({"include": "dog"}, "`include` must be a list of words, got `'dog'`"),
        ({"include": ["dog"] * 51}, "`include` must have at most 50 phrases, got 51"),
        ({"exclude": ["a" * 1001]}, "a phrase of `exclude` must have at most 1,000 characters"),
        ({"suffix": "a" * 1001}, "`suffix` must have at most 1,000 characters, got 1,001"),
    ):
        with pytest.raises(client.exceptions.AppError, match=message):
            connection.predict(client.handle_file(picture), **settings, api_name="/caption")
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(client.exceptions.AppError, match=r"x\.png cannot be captioned: it is"):
        connection.predict(client.handle_file(tmp_path / "x.png"), api_name="/caption")
    with pytest.raises(client.exceptions.AppError, match="was not uploaded to this server"):
        connection.predict("photo.jpg", api_name="/caption")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": {}, "beamsize": 5}, "Parameter `beamsize` is not a valid key-word argument."),
        ({"beam_size": 5}, "No value provided for required argument: image."),
    ],
)
def test_wrong_arguments_of_the_http_api_are_named(address, arguments, message):
    request = urllib.request.Request(
        f"{address}gradio_api/call/v2/caption",
        json.dumps(arguments).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=PATIENCE)
    answer = json.load(error.value)["error"]
    assert answer.startswith(f"{message} The arguments of /caption are `image`, `beam_size`, ")
    assert error.value.code == 422


def test_uploads_are_limited(page, tmp_path):
    """In number, bytes and pixels; messages name the limit."""
    files = [tmp_path / f"{n}.png" for n in range(13)]
    for n, file in enumerate(files):
        Image.new("RGB", (300, 300), (n, 0, 0)).save(file)

    def has_message(part):
        return until(lambda: any(part in text for text in texts(page, ".toast-body")))

    open_folder_tab(page)
    add_images(page, files)
    click(page, "#go_all")
    has_message("there are 13 files, and at most 12 are captioned at once: choose fewer, or start")
    open_tab(page, "image")
    Image.new("RGB", (1200, 1000)).save(files[0])
    upload(page, files[0])
    has_message("0.png cannot be captioned: it has 1.2 million pixels, and at most 1 million")
    page.refresh()
    files[1].write_bytes(files[1].read_bytes() + bytes(1_000_000))
    upload(page, files[1])
    has_message('exceed the maximum allowed size of 976.6 Kb: "1.png"')


def test_texts_of_the_page_are_limited(inferencer, picture, tmp_path):
    gradio = pytest.importorskip("gradio")
    from pcm_plugin.commands.web_captioner import WebCaptioner
    from pcm_plugin.commands.web_corrections import CorrectionControls
    from pcm_plugin.commands.web_image import make_handler
    from pcm_plugin.commands.web_limits import UploadLimits
    from pcm_plugin.formats.corrections import CorrectionFile

    captioner = WebCaptioner(inferencer, tmp_path, UploadLimits())
    shown = {"path": str(picture), "orig_name": "x.png"}
    with pytest.raises(gradio.Error, match="`exclude` must have at most 50 phrases, got 60"):
        [*make_handler(captioner)(shown, *DECODING[:7], "a," * 60, "", "")]
    controls = CorrectionControls(captioner, CorrectionFile(tmp_path / "corrections.jsonl"))
    with pytest.raises(gradio.Error, match="a corrected caption must have at most 1,000"):
        controls.save({"upload": shown, "name": "x", "generated": "y"}, "&" + "amp;" * 10**6)


def test_labels_say_what_is_counted(inferencer, monkeypatch):
    pytest.importorskip("gradio")
    from pcm_plugin.commands.web_limits import UploadLimits
    from pcm_plugin.commands.web_page import build_page
    from pcm_plugin.formats.subword_vocabulary import SubwordVocabulary

    def labels():
        config = build_page(inferencer, "title", [], None, UploadLimits()).get_config_file()
        labels = [c["props"].get("label") for c in config["components"] if c["type"] == "slider"]
        return [label for label in labels if label.startswith(("Minimum", "Maximum"))]

    assert labels() == ["Minimum words", "Maximum words (with the stop token)"]
    vocabulary = SubwordVocabulary.build(["a dog"] * 5)
    monkeypatch.setattr(inferencer.model, "vocabulary", vocabulary)
    assert labels() == ["Minimum pieces", "Maximum pieces (with the stop token)"]
    monkeypatch.delattr(inferencer.model, "vocabulary")
    assert labels() == ["Minimum tokens", "Maximum tokens (with the stop token)"]


def test_files_of_the_server_cannot_be_read(address, picture):
    """Neither through the endpoint nor through the handlers of the two tabs."""
    with urllib.request.urlopen(f"{address}config", timeout=PATIENCE) as file:
        config = json.load(file)
    ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    image = {"path": str(picture), "orig_name": "x"}  # without the type that gradio checks
    controls = [*DECODING]
    for target, data in (
        ("image", [image, *controls]),
        # Gradio refuses a list of such files itself.
        ("images", [None, [image], *controls]),
        ("caption", [image, 3, 1, 0, 20, 0.0, "", [], [], "", ""]),
    ):
        index = next(
            dependency["id"]
            for dependency in config["dependencies"]
            if ids.get(target) in dependency["inputs"] or dependency["api_name"] == target
        )
        request = {"data": data, "fn_index": index, "session_hash": f"x{index}"}
        join = urllib.request.Request(
            f"{address}gradio_api/queue/join",
            json.dumps(request).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(join, timeout=PATIENCE).close()
        stream = f"{address}gradio_api/queue/data?session_hash=x{index}"
        with urllib.request.urlopen(stream, timeout=PATIENCE) as file:
            answer = file.read().decode()
        assert '"success":false' in answer
        assert "it was not uploaded to this server" in answer or target == "images"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--examples", "nowhere"), "--examples must be a folder of images, got nowhere"),
        (("--examples", "empty"), "--examples must be a folder of images, but empty contains none"),
        (("--examples", "tiff"), "browsers do not show tiff/1.tif: convert it to JPEG or PNG"),
        (("--examples", "broken"), "broken/1.png is not an image"),
        (("--corrections", "a.csv"), "must end in .jsonl, got a.csv"),
        (("--corrections", "a.jsonl"), "a.jsonl:1 was not written by `pcm webui --corrections`"),
    ],
)
def test_invalid_options_are_refused_before_the_model_is_loaded(
    tmp_path, monkeypatch, options, message
):
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "tiff", "broken"):
        Path(name).mkdir()
    Image.new("RGB", (4, 4)).save("tiff/1.tif")
    Path("broken/1.png").write_text("no image")
    Path("a.jsonl").write_text('{"caption": "a dog"}\n')
    result = run("webui", "no_such_model", *options, log=tmp_path / "log", launcher=False)
    assert result.code == 1
    assert message in result.output
    assert "no_such_model" not in result.output


def test_the_first_examples_of_a_folder_are_copied(tmp_path, capsys):
    pytest.importorskip("gradio")
    from pcm_plugin.commands.web_examples import check_examples, write_examples

    photos, target = tmp_path / "photos", tmp_path / "target"
    photos.mkdir()
    target.mkdir()
    for n in range(13):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(photos / f"{n:02}.png")
    files = check_examples(photos)
    assert [file.name for file in files] == [f"{n:02}.png" for n in range(12)]
    assert "the first 12 of 13 images" in capsys.readouterr().out
    copies = write_examples(MODEL, files, target)
    assert [p.read_bytes() for p in copies] == [p.read_bytes() for p in files]
    assert {p.parent for p in copies} == {target}
    assert write_examples("captioner.safetensors", [], target) == []


def test_without_a_file_corrections_are_disabled_with_a_hint(inferencer):
    gradio = pytest.importorskip("gradio")
    from pcm_plugin.commands.web_corrections import CorrectionControls
    from pcm_plugin.commands.web_limits import UploadLimits
    from pcm_plugin.commands.web_page import build_page

    config = build_page(inferencer, "title", [], None, UploadLimits()).get_config_file()
    parts = {c["props"].get("elem_id"): c["props"] for c in config["components"]}
    for name in ("correction", "folder_correction"):
        assert parts[name]["interactive"] is False
        assert parts[f"{name}_save"]["interactive"] is False
        assert "--corrections FILE.jsonl" in parts[f"{name}_hint"]["value"]
    with pytest.raises(gradio.Error, match="corrections are disabled"):
        CorrectionControls(None, None).save({"upload": {}}, "a dog")


def test_a_folder_reads_no_files_of_the_server(picture, inferencer, tmp_path):
    pytest.importorskip("gradio")
    from pcm_plugin.commands.web_captioner import WebCaptioner
    from pcm_plugin.commands.web_folder import caption_uploads
    from pcm_plugin.commands.web_limits import UploadLimits

    uploads = tmp_path / "uploads"
    uploads.mkdir()
    shutil.copy(picture, uploads / "1.png")
    (uploads / "link.png").symlink_to(picture)
    paths = [uploads / "1.png", picture, uploads / "link.png", uploads / ".." / picture.name]
    data = [{"path": str(path), "orig_name": "x.png"} for path in paths] + [{}, None, 3]
    captioner = WebCaptioner(inferencer, uploads, UploadLimits())
    [rows] = caption_uploads(captioner, data, {}, uploads)
    assert [row.get("error", "")[:34] for row in rows] == [
        "",
        *["it was not uploaded to this server"] * 6,
    ]
    assert rows[0]["generated"]


def test_images_of_one_name_are_told_apart():
    pytest.importorskip("gradio")
    from pcm_plugin.commands.web_folder import unique_names

    names = ["1.png", "2.png", "1.png", "1 (2).png", "1.png"]
    unique = unique_names(names)
    assert unique[:2] == ["1.png", "2.png"]
    assert unique[3] == "1 (2).png"
    assert len({*unique}) == len(names)


def test_uploads_are_decoded_as_image_viewers_do(picture, inferencer, tmp_path):
    """Broken EXIF data, colors of transparent pixels, and errors; without a browser."""
    gradio = pytest.importorskip("gradio")
    from pcm_plugin.commands.web_captioner import WebCaptioner
    from pcm_plugin.commands.web_image import make_handler
    from pcm_plugin.commands.web_limits import UploadLimits

    show = make_handler(WebCaptioner(inferencer, tmp_path, UploadLimits()))

    def caption(name):
        upload = {"path": str(tmp_path / name), "orig_name": f"<{name}>"}
        *_, (html, *_) = show(upload, *DECODING)
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
