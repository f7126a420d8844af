import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from pcm_plugin.datasets.images import as_rgb, read_image


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for name in ("ramp.png", "ramp.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        found = np.asarray(read_image(tmp_path / name))
        assert found.shape == (256, 256, 3)
        assert np.array_equal(found[..., 0], ramp >> 8)
    small = Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16))
    assert np.array_equal(np.asarray(as_rgb(small))[..., 1].ravel(), np.arange(256))


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "tiff"])
def test_broken_files_of_any_kind_are_one_kind_of_error(form, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, exif=exif)
    whole = bytearray(buffer.getvalue())
    generator = np.random.default_rng(1)
    read = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in generator.integers(0, min(len(data), 400), 3):
            data[place] = generator.integers(256)
        path = tmp_path / f"broken.{form}"
        path.write_bytes(data[: generator.integers(1, len(data) + 1)])
        # Any other kind of error ends the test.
        with contextlib.suppress(ValueError):
            assert read_image(path).mode == "RGB"
            read += 1
    assert read < 200


def test_what_is_no_file_is_said(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="no image at"):
        read_image(tmp_path / "nowhere.png")
