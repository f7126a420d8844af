import os

import pytest
from PIL import Image

from pcm_plugin.formats.images import folder as image_folder
from pcm_plugin.formats.images.folder import list_images, printable


@pytest.fixture
def write(tmp_path):
    """A function that writes an image, whatever its name is."""
    Image.new("RGB", (2, 2)).save(tmp_path / "image.png")
    data = (tmp_path / "image.png").read_bytes()
    (tmp_path / "image.png").unlink()

    def write(path, content=data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return write


def counts(listing):
    return {reason: entry.count for reason, entry in listing.skipped.items()}


def test_suffixes_and_order(tmp_path, write):
    for name in ("b.jfif", "a.JPG", "c.avif", "d.jpe", "e.jp2", "deep/er/f.webp", "deep.png"):
        write(tmp_path / name)
    for name in ("x.txt", "y.txt", "z.json", "none", "photo.heic", "page.pdf"):
        write(tmp_path / name, b"text")
    listing = list_images(tmp_path)
    names = ["a.JPG", "b.jfif", "c.avif", "d.jpe", "deep/er/f.webp", "deep.png", "e.jp2"]
    assert listing.files == names
    assert listing.describe_skipped() == (
        "skipped 6 entries: 4 no image suffix: .txt 2, without 1, .json 1; "
        "2 unsupported image format (convert it to JPEG or PNG): .heic 1, .pdf 1"
    )


def test_hidden_and_system_files_are_skipped(tmp_path, write):
    for name in (
        *(".hidden.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png"),
        *("@eaDir/a.png", "Thumbs.db", "cat.jpg/inside.png", "a.png"),
    ):
        write(tmp_path / name)
    listing = list_images(tmp_path)
    assert listing.files == ["a.png"]
    assert counts(listing) == {image_folder.HIDDEN: 6, image_folder.NAMED_LIKE_IMAGE: 1}
    assert "cat.jpg" in listing.describe_skipped()
    # A folder that is named is searched, whatever its name.
    assert list_images(tmp_path / "cat.jpg").files == ["inside.png"]


def test_links_to_folders_are_followed_once(tmp_path, write):
    root, other = tmp_path / "root", tmp_path / "other"
    write(root / "real" / "a.png")
    write(other / "b.png")
    (root / "a_link").symlink_to(root / "real")
    (root / "cycle").symlink_to(root)
    (other / "back").symlink_to(root)
    (root / "other1").symlink_to(other)
    (root / "other2").symlink_to(other)
    (root / "file.png").symlink_to(other / "b.png")
    (root / "gone.png").symlink_to(other / "nowhere.png")
    (root / "self.png").symlink_to(root / "self.png")
    listing = list_images(root)
    assert listing.files == ["file.png", "other1/b.png", "real/a.png"]
    assert counts(listing) == {image_folder.VISITED: 4, image_folder.BROKEN_LINK: 2}
    (tmp_path / "entry").symlink_to(root)
    assert list_images(tmp_path / "entry").files == listing.files


def test_special_files_and_images_without_suffix(tmp_path, write):
    os.mkfifo(tmp_path / "pipe.png")
    write(tmp_path / "scan")
    write(tmp_path / "photo.jpg_large")
    for number in range(30):
        write(tmp_path / f"{number:02}.text", b"")
    write(tmp_path / "zz.text")
    listing = list_images(tmp_path)
    assert listing.files == []
    assert counts(listing) == {
        image_folder.SPECIAL: 1,
        image_folder.MISNAMED: 2,
        image_folder.OTHER: 31,  # after 20 files of a suffix no more are opened
    }
    assert "photo.jpg_large, scan" in listing.describe_skipped()


def test_names_that_are_not_utf8(tmp_path, write):
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.png", b"dir\xff/in.png", "ü\n\"'.png".encode(), "🐈.png".encode()):
        write(tmp_path / os.fsdecode(name))
    listing = list_images(tmp_path)
    assert listing.files == ["ü\n\"'.png", "🐈.png"]
    assert [os.fsencode(n) for n in listing.undecodable] == [b"caf\xe9.png", b"dir\xff/in.png"]
    assert r"caf\xe9.png, dir\xff/in.png" in listing.describe_skipped()
    assert folder
    assert printable("a\tb\n\udce9\ud800 🐈") == r"a\tb\n" + r"\udce9\ud800 🐈"
    assert printable("caf\udce9\x1b[0m") == r"caf\xe9\x1b[0m"


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        list_images(tmp_path / "nowhere")
