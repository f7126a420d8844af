"""Tests of pcm caption: mixed folders, interruptions, errors."""

import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.apis.journal import SUFFIX, Journal
from pcm_plugin.commands import caption
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes
from tests.test_tools.commands import run, start

NAME = "pcm-net_toy"


@pytest.fixture(scope="module")
def pictures():
    """Return six images of the toy world."""
    return [render(scene, 0).image for scene in unseen_scenes(6, minimum=2)]


@pytest.fixture(scope="module")
def inferencer():
    return CaptionInferencer(NAME, device="cpu", show_progress=False)


@pytest.fixture
def photos(tmp_path, pictures):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def command(monkeypatch, capsys, inferencer):
    """Return a function that runs the command here and returns exit code, stdout and stderr."""
    monkeypatch.setattr(
        "pcm_plugin.apis.inferencer.CaptionInferencer", lambda *args, **kwargs: inferencer
    )

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["caption", NAME, *map(str, words)])
        code = 0
        try:
            caption.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def test_formats_and_files_that_are_skipped(command, tmp_path, pictures):
    """All image formats of Pillow are captioned; other files are reported."""
    folder = tmp_path / "photos"
    (folder / "cat.jpg").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    pictures[0].save(folder / ".ipynb_checkpoints" / "a-checkpoint.jpg")
    names = ["a.jpg", "b.jfif", "c.avif", "d.jpe", "e.png"]
    for name in names:
        pictures[0].save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "video.mp4").write_bytes(b"no image")
    out = tmp_path / "out.json"
    code, printed, errors = command(folder, "--out", out)
    assert code == 0
    rows = json.loads(out.read_text())
    assert [os.path.basename(row["image"]) for row in rows] == names
    assert [line.split("\t")[0] for line in printed.splitlines()] == [row["image"] for row in rows]
    assert "1 folder with the name of an image: cat.jpg" in errors
    assert "1 hidden or of the operating system: .ipynb_checkpoints" in errors
    assert "2 no image suffix: .mp4 1, .txt 1" in errors


def test_one_invalid_name_does_not_affect_the_other_images(photos, tmp_path):
    """Run as a subprocess with an ASCII terminal."""
    bad = os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png")
    os.rename(photos / "5.png", bad)
    os.rename(photos / "4.png", photos / "two\nlines \"'🐈.png")
    out, sheet, page = (tmp_path / name for name in ("out.json", "sheet.png", "page.html"))
    command = [NAME, photos, "--out", out, "--sheet", sheet, "--html", page]
    env = {"PYTHONIOENCODING": "ascii"}
    result = run("caption", *command, log=tmp_path / "log", launcher=False, env=env)
    assert result.code == 1
    assert r"caf\xe9.png is not a valid UTF-8 file name: rename the file" in result.output
    assert "1 of 6 images could not be read" in result.output
    assert "Traceback" not in result.output
    rows = json.loads(out.read_text())
    assert len(rows) == 5
    assert rows[-1]["image"].endswith("two\nlines \"'🐈.png")
    assert r"two\nlines" in result.output
    assert sheet.stat().st_size
    text = page.read_text()
    assert text.count('<div class="card">') == 5
    assert r"two\nlines &#34;&#39;🐈.png" in text
    # The file is passed on the command line, and from Python.
    result = run("caption", NAME, bad, photos / "0.png", log=tmp_path / "log", launcher=False)
    assert result.code == 1
    assert f"{photos / '0.png'}\t" in result.output


def test_invalid_names_from_python(inferencer, photos, caplog):
    bad = os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png")
    os.rename(photos / "5.png", bad)
    found = inferencer(photos)["predictions"]
    assert len(found) == 5
    assert r"caf\xe9.png" in caplog.text
    found = inferencer([bad, photos / "0.png"], skip_invalid=True)["predictions"]
    assert r"caf\xe9.png is not a valid UTF-8" in found[0]["error"]
    json.dumps(found, ensure_ascii=False).encode()
    assert found[1]["caption"]
    with pytest.raises(ValueError, match="rename the file"):
        inferencer(bad)


def test_broken_exif_and_transparency_from_python(inferencer, tmp_path, pictures):
    """The caption depends on the visible pixels only."""
    expected = inferencer(pictures[0])["predictions"][0]["caption"]
    paths = [tmp_path / name for name in ("header.png", "hidden.png")]
    pictures[0].save(paths[0], exif=b"Exif\0\0\0\x08\0\x02\x01\x12\0\x03")
    on_white = pictures[0].convert("RGBA")
    hidden = Image.fromarray(np.random.default_rng(0).integers(0, 256, (112, 112, 4), np.uint8))
    hidden.putalpha(0)
    white = Image.new("RGB", hidden.size, "white")
    hidden.save(paths[1])
    found = inferencer([paths[0], Image.open(paths[0]), on_white, paths[1], white])["predictions"]
    captions = [row["caption"] for row in found]
    assert captions[:3] == [expected] * 3
    assert captions[3] == captions[4]
    cut = tmp_path / "cut.png"
    cut.write_bytes(paths[0].read_bytes()[:-300])
    found = inferencer([Image.open(cut), pictures[0]], skip_invalid=True)["predictions"]
    assert "cannot be decoded" in found[0]["error"]
    assert found[1]["caption"] == expected


def test_an_interrupted_job_continues(command, photos, tmp_path, monkeypatch, inferencer):
    (photos / "broken.png").write_bytes(b"no image")
    files = {name: tmp_path / f"whole.{name}" for name in ("json", "png", "html")}
    whole = ["--batch-size", 2, "--out", files["json"], "--sheet", files["png"]]
    assert command(photos, *whole, "--html", files["html"])[0] == "1 of 7 images could not be read"
    assert not list(tmp_path.glob(f"*{SUFFIX}"))

    out = tmp_path / "out.json"
    words = [photos, "--batch-size", 2, "--out", out, "--sheet", tmp_path / "out.png"]
    words += ["--html", tmp_path / "out.html"]
    append = Journal.append

    def interrupted(journal, rows):
        if journal.count == 4:
            raise KeyboardInterrupt
        append(journal, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", interrupted)
        code, printed, errors = command(*words)
    journal = tmp_path / f"out.json{SUFFIX}"
    assert code == 130
    assert not out.exists()
    assert f"4 of 7 images are captioned and kept in {journal}: run the command again" in errors
    assert len(journal.read_text().splitlines()) == 5

    code, _, _ = command(*words, "--beam-size", 2)
    assert "other settings (decoding: {'beam_size': 3" in code
    (photos / "7.png").write_bytes((photos / "0.png").read_bytes())
    code, _, _ = command(*words)
    assert "images: 7 there, 8 now" in code
    (photos / "7.png").unlink()
    # A killed process leaves an incomplete batch and an incomplete line.
    with journal.open("a") as file:
        file.write(journal.read_text().splitlines()[-1] + '\n{"capt')
    code, printed, errors = command(*words)
    assert code == "1 of 7 images could not be read"
    assert "4 images are captioned already" in errors
    assert len(printed.splitlines()) == 2
    for name, file in files.items():
        assert (tmp_path / f"out.{name}").read_bytes() == file.read_bytes()
    assert not journal.exists()


def test_a_killed_job_writes_the_same_bytes_after_resuming(photos, tmp_path, pictures):
    for number in range(6, 60):
        pictures[number % 6].save(photos / f"{number}.png")
    out = tmp_path / "out.json"
    words = [NAME, photos, "--device", "cpu", "--batch-size", 1, "--out", out]
    env = {"OMP_NUM_THREADS": "1"}
    [process] = start("caption", *words, log=tmp_path / "log", env=env)
    journal = tmp_path / f"out.json{SUFFIX}"
    end = time.monotonic() + 100
    while process.exitcode is None and time.monotonic() < end:
        if journal.exists() and journal.read_bytes().count(b"\n") > 4:
            process.kill()
            process.join()
        time.sleep(0.01)
    assert not out.exists()
    done = journal.read_bytes().count(b"\n") - 1
    result = run("caption", *words, log=tmp_path / "log", launcher=False, env=env)
    assert result.code == 0, result.output
    assert f"{done} images are captioned already" in result.output
    first = out.read_bytes()
    assert len(json.loads(first)) == 60
    result = run("caption", *words, log=tmp_path / "log", launcher=False, env=env)
    assert out.read_bytes() == first


def test_a_job_does_not_continue_with_another_second_clip(command, photos, tmp_path, monkeypatch):
    clip = shutil.copytree("benchmarks/taught_clip", tmp_path / "clip")
    words = [photos, "--batch-size", 2, "--out", tmp_path / "out.json"]
    words += ["--rerank", "ranks", "--rerank-clip", f"local-dir:{clip}"]

    append = Journal.append

    def interrupted(journal, rows):
        if journal.count:
            raise KeyboardInterrupt
        append(journal, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", interrupted)
        assert command(*words)[0] == 130
    (clip / "note.txt").write_text("other content")
    code = command(*words)[0]
    assert "other settings (decoding: {" in code
    (clip / "note.txt").unlink()
    code, _, errors = command(*words)
    assert code == 0
    assert "2 images are captioned already" in errors


def test_a_running_job_is_locked(command, photos, tmp_path):
    out = tmp_path / "out.json"
    with Journal(out, {}, 1):
        assert "another process is writing" in command(photos, "--out", out)[0]
    (tmp_path / f"out.json{SUFFIX}").write_text("notes\nof mine\n" * 40)
    assert "is not the journal of a job" in command(photos, "--out", out)[0]


def test_invalid_settings_leave_no_journal(command, photos, tmp_path):
    code, _, _ = command(photos, "--out", tmp_path / "out.json", "--beam-size", 0)
    assert "beam_size" in code
    assert not list(tmp_path.glob("out*"))
    for option in ("--out", "--sheet", "--html"):
        assert f"{option} must be a file name" in command(photos, option, tmp_path)[0]
    (photos / "a\nb.png").write_bytes(b"no image")
    assert r"a\nb.png is not an image" in command(photos)[2]
    assert "--batch-size must be" in command(photos, "--batch-size", 0)[0]


def test_a_disk_error_stops_the_job(command, photos, tmp_path, monkeypatch):
    """An I/O error is not an invalid image, since all other images would fail too."""
    from pcm_plugin.apis import image_inputs

    def fails(file):
        raise OSError(5, "Input/output error", str(file))

    monkeypatch.setattr(image_inputs, "read_image", fails)
    code, _, _ = command(photos, "--out", tmp_path / "out.json")
    assert "Input/output error" in code
    monkeypatch.undo()
    os.chmod(photos / "0.png", 0)
    if os.getuid():
        assert command(photos)[0] == "1 of 6 images could not be read"
