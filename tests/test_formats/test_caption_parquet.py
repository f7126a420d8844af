import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.caption_file import CaptionFile
from tests.test_tools.commands import run

TEXTS = ["a red dog", "the  dog", "a café", "a dog"]


def write(path, group=3, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def test_captions_of_synthimgcap_have_row_numbers(tmp_path):
    """Its images are skipped; text is its column of captions."""
    images = [{"bytes": b"\x89PNG", "path": f"{i}.png"} for i in range(4)]
    path = write(tmp_path / "train-00000-of-00001.parquet", image=images, text=TEXTS)
    file = CaptionFile(path, column="text")
    assert file.format_name() == "Parquet"
    assert [caption.text for caption in file] == ["a red dog", "the dog", "a café", "a dog"]
    assert [(caption.id, caption.image_id) for caption in file] == [(x, x) for x in "0123"]
    assert str(file.scan()).startswith(f"{path} (Parquet): 4 captions")
    log = tmp_path / "log"
    args = [path, "--min-count", 1, "--out", tmp_path / "vocabulary.txt"]
    result = run("build-vocabulary", *args, log=log)
    assert result.code == 1
    assert "no column 'caption', only ['image', 'text']: pass --column text" in result.output
    result = run("build-vocabulary", *args, "--column", "text", log=log)
    assert result.code == 0, result.output
    assert "café" in (tmp_path / "vocabulary.txt").read_text().split()


@pytest.mark.parametrize("strings", [pa.string(), pa.large_string(), "dictionary"])
def test_fields_equal_those_of_other_formats(tmp_path, strings):
    if strings == "dictionary":
        strings = pa.dictionary(pa.int8(), pa.string())
    path = write(
        tmp_path / "captions",
        caption=pa.array([*TEXTS, "", "a test dog"], strings),
        id=[7, 7, 9, 9, 10, 11],
        file_name=pa.array(["a.jpg", "a.jpg", "b.jpg", "b.jpg", "c.jpg", "d.jpg"], strings),
        split=["train", "train", "restval", "train", "train", "test"],
        size=[0.5, None, 2.0, 3.0, 4.0, 5.0],
    )
    file = CaptionFile(path)
    assert file.has_splits()
    found = [(caption.id, caption.image_id, caption.file_name) for caption in file]
    assert found == [(f"{i}#{k}", n, f"{n}.jpg") for i, n in ((7, "a"), (9, "b")) for k in (1, 2)]
    (test,) = CaptionFile(path, split="test")
    assert test.text == "a test dog"


def test_a_list_holds_several_captions_of_an_image(tmp_path):
    captions = [["a dog", "the dog"], ["a cat"]]
    path = write(tmp_path / "captions.parquet", caption=captions, image_id=[5, 6])
    found = [(caption.id, caption.image_id, caption.text) for caption in CaptionFile(path)]
    assert found == [("5#0", "5", "a dog"), ("5#1", "5", "the dog"), ("6#0", "6", "a cat")]


def test_rows_without_a_caption_are_named(tmp_path):
    path = write(tmp_path / "captions.parquet", caption=["a dog", None, "a cat"])
    with pytest.raises(ValueError, match=r"captions.parquet: row 1: no text under 'caption'"):
        list(CaptionFile(path))
    file = CaptionFile(path, skip_invalid=True)
    assert [caption.text for caption in file] == ["a dog", "a cat"]
    assert file.scan().invalid == 1


def test_wrong_files_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "captions.parquet", caption=TEXTS)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut.parquet: a Parquet file that is damaged or not"):
        list(CaptionFile(cut))
    text = tmp_path / "captions.jsonl"
    text.write_text(json.dumps({"caption": "a dog"}) + "\n")
    with pytest.raises(ValueError, match="damaged or not complete"):
        list(CaptionFile(text, format="parquet"))
    with pytest.raises(ValueError, match="not a text file but a Parquet file"):
        list(CaptionFile(path, format="text"))
    with pytest.raises(ValueError, match="not a text file but a Parquet file"):
        list(CaptionFile(path, encoding="cp1252"))
    texts = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xe9"], pa.binary()).buffers())
    with pytest.raises(ValueError, match="a string after row 0 is not UTF-8"):
        list(CaptionFile(write(tmp_path / "latin.parquet", caption=texts)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow .*: pip install pyarrow"):
        list(CaptionFile(path))


def test_memory_holds_no_images(tmp_path):
    """The image column is not decoded: its pages are invalid here."""
    image = pa.array([bytes([i]) * 5000 for i in range(4)], pa.binary())
    path = tmp_path / "captions.parquet"
    table = pa.table({"image": image, "caption": TEXTS})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    data = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start, size = column.data_page_offset, column.total_compressed_size
    path.write_bytes(data[:start] + b"\xff" * size + data[start + size :])
    assert len(list(CaptionFile(path))) == 4
