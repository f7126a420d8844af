"""File of corrected captions."""

import io
import json
import threading

import pytest
from PIL import Image

from pcm_plugin.formats.captions.by_image import group_by_image
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.corrections import CorrectionFile
from pcm_plugin.formats.images.image_io import read_image


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(buffer, "PNG")
    return buffer.getvalue()


def lines(file):
    return [json.loads(line) for line in file.path.read_text().splitlines()]


@pytest.fixture
def file(tmp_path):
    return CorrectionFile(tmp_path / "new" / "mine.jsonl")


def test_corrections_are_read_as_captions_of_their_images(file):
    file.save(png("red"), "a <b>red</b>\n square ", "a dog", "one.png")
    file.save(png("blue"), 'ein Würfel, "blau"', "a cat", "two.png")
    images = group_by_image(CaptionFile(file.path))
    assert [image.captions for image in images] == [["a red square"], ['ein Würfel, "blau"']]
    names = [image.file_name for image in images]
    colors = [read_image(file.folder / name).getpixel((0, 0)) for name in names]
    assert colors == [(255, 0, 0), (0, 0, 255)]
    assert (file.folder / names[0]).read_bytes() == png("red")
    assert [row["generated"] for row in lines(file)] == ["a dog", "a cat"]


def test_the_last_correction_of_an_image_counts_and_earlier_ones_are_kept(file):
    first = file.save(png("red"), "one", "a dog", "a.png")
    assert first.replaced is None
    again = CorrectionFile(file.path)
    assert again.save(png("red"), "one", "a dog", "a.png").replaced is None
    assert again.save(png("red"), "two", "a dog", "b.png").replaced == "one"
    assert file.save(png("red"), "three", "a dog", "b.png").replaced == "two"
    [row] = lines(file)
    assert (row["caption"], row["previous"], row["uploaded_as"]) == (
        "three",
        ["one", "two"],
        "b.png",
    )
    assert [image.captions for image in group_by_image(CaptionFile(file.path))] == [["three"]]


def test_no_correction_is_lost_if_several_are_saved_at_once(file):
    def save(n):
        CorrectionFile(file.path).save(png((n, 0, 0)), f"number {n}", "a dog", "a.png")

    threads = [threading.Thread(target=save, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["caption"] for row in lines(file)) == [f"number {n}" for n in range(8)]


def test_equal_corrections_give_equal_bytes(tmp_path):
    files = [CorrectionFile(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    for file in files:
        file.save(png("red"), "one", "a dog", "a.png")
        file.save(png("blue"), "two", "a dog", "a.png")
    assert files[0].path.read_bytes() == files[1].path.read_bytes()
    assert sorted(p.name for p in files[0].folder.iterdir()) == sorted(
        p.name for p in files[1].folder.iterdir()
    )


@pytest.mark.parametrize("caption", ["", " \n", "None", "x" * 1001])
def test_captions_that_no_reader_would_accept_are_refused(file, caption):
    with pytest.raises(ValueError, match="a corrected caption must"):
        file.save(png("red"), caption, "a dog", "a.png")
    assert not file.path.exists()


def test_files_that_are_not_images_are_refused(file):
    with pytest.raises(ValueError, match="it is not an image"):
        file.save(b"text", "a caption", "a dog", "a.txt")


@pytest.mark.parametrize(
    "text",
    ['{"file_name": "a.jpg", "caption": "a dog"}\n', "a dog\n", "[1]\n", "1\n"],
)
def test_other_files_are_not_changed(tmp_path, text):
    path = tmp_path / "captions.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"captions.jsonl:1 was not written by `pcm webui"):
        CorrectionFile(path)
    assert path.read_text() == text


def test_names_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.jsonl, got .*mine.csv"):
        CorrectionFile(tmp_path / "mine.csv")
    (tmp_path / "mine").touch()
    with pytest.raises(ValueError, match="but that is a file"):
        CorrectionFile(tmp_path / "mine.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ValueError, match="got the folder"):
        CorrectionFile(tmp_path / "folder.jsonl")
