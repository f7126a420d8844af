"""Small caption files for tests."""

from pcm_plugin.formats.captions.caption_file import CaptionFile


def write(tmp_path, content, name="captions"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(tmp_path, content, name="captions", **settings):
    return list(CaptionFile(write(tmp_path, content, name), **settings))


def texts(tmp_path, content, name="captions", **settings):
    return [caption.text for caption in read(tmp_path, content, name, **settings)]
