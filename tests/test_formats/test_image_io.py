"""Images are decoded as viewers show them, with one rule per kind of pixels (docs/images.md)."""

import contextlib
import errno
import io
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from pcm_plugin.formats.images.image_io import read_header, read_image, to_rgb
from pcm_plugin.formats.images.suffixes import image_formats, image_suffixes
from tests.image_files import chunk, png, tiff

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def shown(data):
    """The pixels of a file: as its content, as a Pillow image, and as one that is loaded."""
    pixels = np.asarray(read_image(data))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(to_rgb(image)), pixels)
    return pixels


def row(*colors, mode="RGBA"):
    image = Image.new(mode, (len(colors), 1))
    image.putdata(colors)
    return image


TRANSPARENT = {
    "rgba": (encoded(row((255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128))), 127),
    "la": (encoded(row((0, 255), (0, 0), (0, 51), mode="LA")), 204),
    "webp": (
        encoded(row((255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)), "WEBP", lossless=True),
        127,
    ),
    "tiff": (encoded(row((255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)), "TIFF"), 127),
    "16-bit rgba": (
        png(
            np.array([[[65535, 0, 0, 65535], [65535, 0, 0, 0], [0, 0, 0, 0x8080]]], np.uint16),
            6,
            16,
        ),
        127,
    ),
    "16-bit la": (
        png(np.array([[[0, 65535], [0, 0], [0, 0x3333]]], np.uint16), 4, 16),
        204,
    ),
    "palette with tRNS": (
        png(
            np.array([[0, 1, 2]]),
            3,
            before=chunk(b"PLTE", bytes([*RED, *RED, *BLACK]))
            + chunk(b"tRNS", bytes([255, 0, 128])),
        ),
        127,
    ),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparent_pixels_are_white(kind):
    data, blended = TRANSPARENT[kind]
    first = BLACK if "la" in kind.split() or kind == "la" else RED
    assert shown(data)[0].tolist() == [[*first], [*WHITE], [blended] * 3]


def test_a_color_can_be_transparent():
    """PNG's tRNS chunk for files without a palette, at every depth."""

    def trns(*values):
        return chunk(b"tRNS", np.array(values, ">u2").tobytes())

    gray = png(np.array([[0, 7, 255]]), 0, before=trns(7))
    assert shown(gray)[0, :, 0].tolist() == [0, 255, 255]
    rgb = png(np.array([[255, 0, 0, 1, 2, 3]]), 2, before=trns(1, 2, 3))
    assert shown(rgb)[0].tolist() == [[*RED], [*WHITE]]
    for depth, packed, levels in (
        (1, 0b01000000, [0, 255] + [0] * 6),
        (2, 0b00011011, [0, 255, 170, 255]),
        (4, 0x21, [34, 255]),
    ):
        data = png(np.array([[packed]]), 0, depth, trns(1))
        assert shown(data)[0, :, 0].tolist() == levels
    wide = png(np.array([[0x1000, 0x7FFF, 0x7F00]], np.uint16), 0, 16, trns(0x7FFF))
    assert shown(wide)[0, :, 0].tolist() == [0x10, 255, 0x7F]
    # Colors that differ in the low byte alone are different colors.
    colors = np.array([[[0x1234, 0, 0], [0x1235, 0, 0], [0xFFFF] * 3]], np.uint16)
    wide = png(colors, 2, 16, trns(0x1234, 0, 0))
    assert shown(wide)[0].tolist() == [[*WHITE], [0x12, 0, 0], [*WHITE]]


def test_gif_and_unused_alpha():
    gif = row(0, 1, 0, mode="P")
    gif.putpalette([*RED, 0, 0, 255])
    assert shown(encoded(gif, "GIF", transparency=1))[0].tolist() == [[*RED], [*WHITE], [*RED]]
    # A fourth byte of 0 everywhere: viewers take BMP and TGA as opaque, PNG as transparent.
    image = row((255, 0, 0, 0), (0, 0, 255, 0))
    for form in ("BMP", "TGA"):
        assert shown(encoded(image, form))[0, 0].tolist() == [*RED]
    assert shown(encoded(image))[0, 0].tolist() == [*WHITE]


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
def test_integers_use_the_depth_that_their_maximum_needs(depth):
    peak = (1 << depth) - 1
    values = np.linspace(0, peak, 40).astype(np.uint16).reshape(5, 8)
    expected = values >> (depth - 8)
    files = [png(values, 0, 16), encoded(Image.fromarray(values), "TIFF")]
    files += [tiff(values, order, deflate) for order in "<>" for deflate in (False, True)]
    for data in files:
        assert np.array_equal(shown(data)[..., 1], expected)
    colors = np.stack([values, values // 2, values // 4], axis=-1)
    files = [png(colors, 2, 16)]
    files += [
        tiff(colors, order, deflate, planar)
        for order in "<>"
        for deflate in (False, True)
        for planar in (False, True)
        if not (planar and deflate)
    ]
    for data in files:
        assert np.array_equal(shown(data), colors >> (depth - 8))
    planar = tiff(colors, deflate=True, planar=True)
    if depth == 16:
        assert np.array_equal(shown(planar), colors >> 8)
    else:  # Pillow cannot decode the low bytes.
        with pytest.raises(ValueError, match="planar TIFF with dark colors"):
            read_image(planar)
    opaque = np.concatenate([colors, np.full_like(colors[..., :1], peak)], axis=-1)
    for data in (png(opaque, 6, 16), tiff(opaque)):
        assert np.array_equal(shown(data), colors >> (depth - 8))
    opaque = np.stack([values, np.full_like(values, peak)], axis=-1)
    assert np.array_equal(shown(png(opaque, 4, 16))[..., 2], expected)
    half = np.stack([values, np.full_like(values, peak // 2)], axis=-1)
    blended = shown(png(half, 4, 16))[..., 0].astype(int)
    alpha = (peak // 2) >> (depth - 8)
    assert np.abs(blended - (expected * (alpha / 255) + 255 - alpha)).max() <= 1


def test_a_file_may_state_its_depth():
    values = np.array([[0, 100, 200]], ">u2")
    data = b"P5 3 1 4095\n" + values.tobytes()
    assert shown(data)[0, :, 0].tolist() == [0, 6, 12]
    dark = Image.fromarray(np.full((8, 8), 0x0A00, np.uint16))
    assert shown(encoded(dark, "JPEG2000"))[4, 4].tolist() == [10, 10, 10]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_signed_values(order, deflate):
    """Negative values are black; the largest signed value is white."""
    for kind, peak in ((np.int16, 32767), (np.int32, 65535)):
        data = tiff(np.array([[-5, 0, peak // 2 + 1, peak]], kind), order, deflate)
        assert shown(data)[0, :, 0].tolist() == [0, 0, 128, 255]
    data = tiff(np.array([[-5, 0, 5, 127]], np.int8), order, deflate)
    assert shown(data)[0, :, 0].tolist() == [0, 0, 5, 127]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_floats(order, deflate):
    def gray(*values):
        return shown(tiff(np.array([values], np.float32), order, deflate))[0, :, 0].tolist()

    nan, infinite = float("nan"), float("inf")
    assert gray(0, 0.5, 1) == [0, 128, 255]
    assert gray(0, 0.5, 1.01, -0.2) == [0, 128, 255, 0]
    assert gray(0, 3, 254.6) == [0, 3, 255]
    assert gray(0, 2048, 4095) == [0, 128, 255]
    assert gray(0, 5e5, 1e6) == [0, 128, 255]
    assert gray(nan, infinite, -infinite, 1) == [0, 255, 0, 255]
    with pytest.raises(ValueError, match="no finite value"):
        gray(nan, nan)


def test_large_integers_and_inverted_tiff():
    values = np.array([[0, 1 << 30, (1 << 31) + (1 << 30)]], np.uint32)
    assert shown(tiff(values))[0, :, 0].tolist() == [0, 85, 255]
    for values in (np.array([[0, 65535]], np.uint16), np.array([[0, 1]], np.float32)):
        assert shown(tiff(values, tags={262: 0}))[0, :, 0].tolist() == [255, 0]
    small = Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16))
    assert np.array_equal(np.asarray(to_rgb(small))[..., 1].ravel(), np.arange(256))


def test_other_color_spaces():
    color = (200, 60, 30)
    flat = Image.new("RGB", (16, 16), color)
    for mode, form in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF")):
        if mode == "LAB":
            from PIL import ImageCms

            profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            image = ImageCms.profileToProfile(flat, *profiles, outputMode="LAB")
        else:
            image = flat.convert(mode)
        found = shown(encoded(image, form))[8, 8].astype(int)
        assert np.abs(found - color).max() <= 4, (mode, form)
    found = shown(encoded(flat, "TIFF", compression="jpeg"))[8, 8].astype(int)
    assert np.abs(found - color).max() <= 4
    bits = Image.fromarray(np.array([[True, False]]))
    for form in ("PNG", "TIFF", "BMP"):
        assert shown(encoded(bits, form))[0, :, 0].tolist() == [255, 0]
    assert shown(encoded(bits, "TIFF", compression="group4"))[0, :, 0].tolist() == [255, 0]


def test_the_first_frame_of_several():
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 0, 255))]
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert shown(data)[0, 0].tolist() == [*RED], form


def test_color_profiles_are_ignored():
    """As in CLIP's own preprocessing."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.new("RGB", (2, 2), (200, 60, 30))
    for icc in (profile, b"broken"):
        assert shown(encoded(image, icc_profile=icc))[0, 0].tolist() == [200, 60, 30]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_orientation(form):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(pixels), form, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(shown(data), expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "MPO"])
def test_images_with_broken_exif_are_read(form):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0132], exif[0x011A] = "maker", "2020:01:01 00:00:00", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    whole = encoded(Image.fromarray(pixels), form, exif=exif)
    expected = shown(whole)
    # In AVIF and WebP the last copy is the EXIF data, after an index that names it.
    start = whole.rindex(b"MM\0*") if form in ("AVIF", "WEBP") else whole.index(b"MM\0*")
    generator = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            data = bytearray(whole)
            for place in generator.integers(start, start + 100, 4):
                data[place] = generator.integers(256)
            # A random byte may turn the image: compare the set of pixels.
            found = np.asarray(read_image(bytes(data))).reshape(-1, 3)
            assert np.array_equal(np.sort(found, axis=0), np.sort(expected.reshape(-1, 3), axis=0))


@pytest.mark.parametrize(
    ("tag", "value"),
    [(0x011A, b"\0\0\0\x48"), (0x0112, b"\xff\xff\xff\xfa"), (0x010F, b"\0\0\0\x07")],
)
def test_exif_that_cannot_be_rewritten_still_rotates_the_image(tag, value):
    """Types that no reader minds and Pillow's writer does: case 31."""
    types = {0x011A: 2, 0x0112: 9, 0x010F: 11}
    entries = [(0x0112, 3, b"\0\6\0\0"), (tag, types[tag], value)]
    directory = b"".join(
        np.array([t, kind], ">u2").tobytes() + b"\0\0\0\1" + data
        for t, kind, data in sorted(entries, key=lambda e: e[0] == 0x0112, reverse=True)
    )
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + directory + bytes(4)
    data = encoded(Image.new("RGB", (8, 4), RED), "JPEG", exif=exif)
    assert shown(data).shape[:2] in ((8, 4), (4, 8))
    if tag != 0x0112:
        assert shown(data).shape[:2] == (8, 4)


def test_images_with_broken_metadata_are_read():
    pixels = np.arange(12).reshape(2, 6)
    zipped = b"x\0\0" + zlib.compress(bytes(2_000_000))
    broken = chunk(b"tEXt", b"a\0b")[:-1] + b"?"
    for before in (chunk(b"zTXt", zipped), broken, chunk(b"iCCP", b"?"), chunk(b"eXIf", b"?")):
        data = png(pixels, 2, before=before)
        assert read_header(data).format == "PNG"
        assert np.array_equal(np.asarray(read_image(data)).ravel(), pixels.ravel())
        late = png(pixels, 2)
        end = late.index(b"IEND") - 4
        data = late[:end] + before + late[end:]
        assert np.array_equal(np.asarray(read_image(data)).ravel(), pixels.ravel())
    tags = {34853: 4, 34665: 4_000_000_000, 700: 77}
    data = tiff(np.array([[9, 8]], np.uint8), tags=tags)
    assert shown(data)[0, :, 0].tolist() == [9, 8]


def test_very_thin_images_are_cropped_to_their_middle():
    """CLIP's preprocessing scales the short side to its input: the long one would be too long."""
    for turned in (False, True):
        image = Image.fromarray(np.zeros((2, 1000, 3), np.uint8))
        image.putpixel((500, 0), RED)
        image.putpixel((399, 0), RED)
        found = to_rgb(image.transpose(Image.Transpose.TRANSPOSE) if turned else image)
        assert sorted(found.size) == [2, 200]
        assert (np.asarray(found)[..., 0] > 0).sum() == 1
    assert to_rgb(Image.new("RGB", (200, 2))).size == (200, 2)
    assert read_image(encoded(Image.new("RGB", (1, 1), RED))).getpixel((0, 0)) == RED


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "tiff", "gif", "bmp", "avif"])
def test_every_broken_file_raises_the_same_error(form, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    options = {"exif": exif} if form in ("png", "jpeg", "webp", "tiff", "avif") else {}
    whole = encoded(Image.fromarray(pixels), form, **options)
    generator = np.random.default_rng(1)
    read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            data = bytearray(whole)
            for place in generator.integers(0, min(len(data), 400), 3):
                data[place] = generator.integers(256)
            path = tmp_path / f"broken.{form}"
            path.write_bytes(data[: generator.integers(1, len(data) + 1)])
            # Any other kind of error, or a warning, ends the test.
            with contextlib.suppress(ValueError):
                assert read_image(path).mode == "RGB"
                read += 1
            try:
                image = Image.open(io.BytesIO(path.read_bytes()), formats=image_formats())
            except Exception:
                continue
            with contextlib.suppress(ValueError):
                to_rgb(image)
    assert read < 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "a web page, so the download failed"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC: convert it"),
        (b"%PDF-1.4", "PDF document: export"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript: convert"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"no image", "x.png is not an image in a supported format$"),
    ],
)
def test_the_content_of_a_file_is_named(content, message, tmp_path):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_image(tmp_path / "x.png")


def test_too_many_pixels(monkeypatch, tmp_path):
    Image.new("1", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match=r"large.png has more than 1,000 pixels: save a smaller"):
        read_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "large.png").size == (40, 30)
    with open(tmp_path / "huge.tif", "wb") as file:
        file.truncate((2 << 30) + 1)
    with pytest.raises(ValueError, match=r"huge\.tif is larger than 2 GiB"):
        read_image(tmp_path / "huge.tif")
    with pytest.raises(ValueError, match="no pixels, its size is 0 x 3"):
        to_rgb(Image.new("RGB", (0, 3)))


def test_disk_errors_are_not_image_errors(tmp_path):
    class Disk(io.BytesIO):
        def read(self, *args):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_image(Disk())
    file = io.BytesIO(encoded(Image.new("RGB", (90, 90)), "BMP"))
    image = Image.open(file)
    file.read = Disk().read
    with pytest.raises(OSError, match="Input/output"):
        to_rgb(image)
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="no image at"):
        read_image(tmp_path / "nowhere.png")
    for name in ("a\0b.png", "a\ud800.png"):
        with pytest.raises(ValueError, match="cannot be a file name"):
            read_image(tmp_path / name)


def test_warnings_filters_survive_threads():
    before = list(warnings.filters)
    data = encoded(Image.new("RGB", (64, 64)))
    threads = [
        threading.Thread(target=lambda: [read_image(data) for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_suffixes_belong_to_decoded_formats():
    assert {".jpg", ".jfif", ".jpe", ".avif", ".webp", ".jp2", ".tiff", ".png"} <= image_suffixes()
    assert not {".mpg", ".pdf", ".eps", ".ps", ".h5", ".wmf", ".txt"} & image_suffixes()
