"""Atomic file writing, and ids of local models."""

import errno
import os
import resource
import threading

import pytest

from pcm_plugin.errors import LockedError
from pcm_plugin.formats.atomic_io import atomic_write, content_id, write_bytes


def test_the_id_of_a_local_model_ignores_its_card(tmp_path):
    model = tmp_path / "model"
    (model / "unet").mkdir(parents=True)
    (model / "unet" / "weights.safetensors").write_bytes(b"weights")
    name = content_id(model)
    assert name.startswith("model (sha256 ")
    (model / "README.md").write_text("What it is.")
    (model / ".cache").write_text("hidden")
    assert content_id(model) == name
    (model / "unet" / "weights.safetensors").write_bytes(b"other weights")
    assert content_id(model) != name


@pytest.fixture
def small_disk():
    """Limit files of the process to 64 kB, so that writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_old_file(tmp_path, small_disk):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match=str(path)) as caught:
        write_bytes(path, bytes(100_000))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"first")
        with pytest.raises(LockedError, match="another process is writing"):
            write_bytes(path, b"second")
    assert path.read_bytes() == b"first"


def test_concurrent_writers_leave_a_complete_file(tmp_path):
    path, contents = tmp_path / "file", [bytes([i]) * 200_000 for i in range(8)]
    broken, stop = [], threading.Event()

    def write(content):
        while not stop.is_set():
            try:
                write_bytes(path, content)
            except BlockingIOError:
                pass
            except FileNotFoundError as error:
                broken.append(error)

    writers = [threading.Thread(target=write, args=[content]) for content in contents]
    for writer in writers:
        writer.start()
    for _ in range(200):
        if path.exists():
            found = path.read_bytes()
            broken += [found[:1]] if found not in contents else []
    stop.set()
    for writer in writers:
        writer.join()
    assert not broken
