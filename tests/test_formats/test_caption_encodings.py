import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile

import pytest

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.coco import read_coco_images
from tests.test_formats.caption_files import read, texts, write

CHINESE = "一个女孩走进木屋\n两只狗在草地上打架玩耍\n"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 5, "image_id": 1, "caption": "un café"}],
}
CONTENTS = {
    "text": "un café\na dog\n",
    "csv": "id,caption\n1,un café\n",
    "tsv": "id\tcaption\n1\tun café\n",
    "jsonl": '{"id": 1, "caption": "un café"}\n',
    "list": '["un café"]',
    "coco": json.dumps(COCO, ensure_ascii=False),
    "karpathy": '{"images": [{"filename": "a.jpg", "sentences": [{"raw": "un café"}]}]}',
    "flickr": "a.jpg#0\tun café\n",
    "nwpu": '{"sea": [{"filename": "a.jpg", "raw": "un café"}]}',
    "textcaps": '{"data": [{"image_id": "a", "caption_str": "un café", "caption_id": 1}]}',
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_marked_encodings_line_ends_and_gzip_in_each_format(tmp_path, content):
    expected = read(tmp_path, content)
    assert expected[0].text == "un café"
    variants = [content.encode("utf-8-sig"), content.encode("utf-16"), content.encode("utf-32")]
    variants.append(b"\xfe\xff" + content.encode("utf-16-be"))
    variants += [content.replace("\n", end).encode() for end in ("\r\n", "\r")]
    variants += [gzip.compress(variant) for variant in variants]
    for variant in variants:
        assert read(tmp_path, variant) == expected


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_named_and_accepted(tmp_path, content, encoding):
    data = content.encode(encoding)
    with pytest.raises(ValueError, match=f"not UTF-8.*pass encoding='{encoding}'") as error:
        read(tmp_path, data)
    assert "skip" not in str(error.value)
    assert read(tmp_path, data, encoding=encoding)[0].text == "un café"
    assert read(tmp_path, gzip.compress(data), encoding=encoding)[0].text == "un café"


def test_an_encoding_of_another_file_is_refused(tmp_path):
    content = CONTENTS["text"]
    with pytest.raises(ValueError, match="not gbk: its byte-order mark says utf-8"):
        read(tmp_path, content.encode("utf-8-sig"), encoding="gbk")
    for wide in ("utf-16", "utf-16-le", "utf-32"):
        with pytest.raises(ValueError, match=f"not {wide} but valid UTF-8"):
            read(tmp_path, "a dog\nb\n", encoding=wide)
    with pytest.raises(ValueError, match="not cp1252 but valid UTF-8"):
        read(tmp_path, CHINESE, encoding="cp1252")
    with pytest.raises(ValueError, match=r"not cp1252 \(line 2, byte 8: character maps"):
        read(tmp_path, b"a dog\na \x81 cat\n", encoding="cp1252")
    with pytest.raises(ValueError, match="unknown encoding 'klingon': use Python's name"):
        read(tmp_path, content, encoding="klingon")
    late = ("a dog\n" * 30000 + "b\n").encode() + b"\xe9"
    with pytest.raises(ValueError, match=r"not gb18030 \(line 30002, byte 180,002"):
        read(tmp_path, late, encoding="gb18030")


@pytest.mark.parametrize(
    ("encoding", "content", "name"),
    [
        ("gb18030", CHINESE, "GBK or GB18030"),
        ("big5", "一個女孩走進木屋\n兩隻狗在草地上打架玩耍\n", "Big5"),
        ("cp932", "赤い車が道に停まっている\n犬が二匹います\n", "Shift JIS"),
        ("euc_jp", "赤い車が道に停まっている\n犬が二匹います\n", "EUC-JP"),
        ("iso2022_jp", "赤い車が道に停まっている\n犬が二匹います\n", "ISO-2022-JP"),
        ("cp949", "빨간 차가 거리에 있다\n두 마리의 개가 뛰고 있다\n", "EUC-KR"),
        ("cp1251", "красная машина на улице\nдве собаки\n", "Windows-1251"),
        ("koi8_r", "красная машина на улице\nдве собаки\n", "KOI8-R"),
        ("cp1253", "ένα κόκκινο αυτοκίνητο\nδύο σκύλοι\n", "Windows-1253"),
        ("cp1254", "kırmızı araba sokakta\niki köpek koşuyor\n", "Windows-1254"),
        ("cp1250", "czerwony samochód na ulicy\ndwa psy biegną\n", "Windows-1250"),
        ("cp1255", "מכונית אדומה ברחוב\nשני כלבים\n", "Windows-1255"),
        ("cp1256", "سيارة حمراء في الشارع\nكلبان\n", "Windows-1256"),
        ("cp874", "รถสีแดงบนถนน\nสุนัขสองตัว\n", "Windows-874"),
        ("mac_roman", "un café\nun été à Paris\n", "Mac Roman"),
        ("utf-16-le", CHINESE, "UTF-16"),
        ("utf-32-be", CHINESE, "UTF-32"),
        ("cp1252", "it’s a “big” dog\na cat\n", "Windows-1252"),
    ],
)
def test_the_encoding_is_recognized(tmp_path, encoding, content, name):
    data = content.encode(encoding)
    with pytest.raises(ValueError, match=f"probably {name}.*: pass encoding='{encoding}'"):
        read(tmp_path, data)
    assert texts(tmp_path, data, encoding=encoding) == content.split("\n")[:-1]


def test_the_location_of_invalid_bytes_is_named(tmp_path):
    lines = [f"a café {i}" for i in range(6000)]
    data = "\n".join(lines).encode() + b"\na caf\xe9\nthe end"
    assert len(data) > 1 << 16
    at = len("\n".join(lines).encode()) + 6
    match = rf"captions:6001: not UTF-8 \(0xE9 at byte {at:,}\), probably Windows-1252"
    with pytest.raises(ValueError, match=match):
        read(tmp_path, data)
    assert len(read(tmp_path, data, skip_invalid=True)) == 6001
    document = json.dumps(lines, indent=0, ensure_ascii=False).encode()
    broken = document[:-2] + b',\n"a caf\xe9"]'
    with pytest.raises(ValueError, match=r"captions:6002: not UTF-8 \(0xE9 at byte"):
        read(tmp_path, broken)
    # Even if such lines may be skipped, a file in another encoding is refused.
    with pytest.raises(ValueError, match=r"captions:1: not UTF-8.*pass encoding='gb18030'"):
        read(tmp_path, CHINESE.encode("gbk"), skip_invalid=True)


def packed(write_file):
    buffer = io.BytesIO()
    write_file(buffer)
    return buffer.getvalue()


def zipped(**files):
    def write_file(buffer):
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name.replace("__", "/").replace("_", "."), content)

    return packed(write_file)


def tarred(buffer):
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("captions.txt"))


BINARY = {
    "xlsx": (zipped(xl__sharedStrings_xml="<sst/>"), "an Excel workbook: save it as .CSV UTF-8"),
    "ods": (
        zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"),
        "an OpenDocument spreadsheet: save it as",
    ),
    "docx": (zipped(word__document_xml="<w/>"), "an Office document: save it as plain text"),
    "zip": (zipped(captions_txt="a"), "a zip archive with captions.txt: unpack it"),
    "npz": (zipped(arr_npy="a"), "NumPy arrays"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(9), "an old Office document"),
    "bz2": (bz2.compress(b"a dog"), "bzip2 data: unpack it with bunzip2"),
    "xz": (lzma.compress(b"a dog"), "xz data: unpack it with unxz"),
    "zst": (b"\x28\xb5\x2f\xfd\x04\x00", "Zstandard data: unpack it with unzstd"),
    "tar": (packed(tarred), "a tar archive: unpack it with tar"),
    "tgz": (gzip.compress(packed(tarred)), "a tar archive: unpack it with tar"),
    "gz.gz": (gzip.compress(gzip.compress(b"a")), "gzip data within gzip data"),
    "parquet": (b"PAR1" + bytes(9), "a Parquet file that is damaged"),
    "pkl": (pickle.dumps(["a dog"]), "a Python pickle"),
    "pdf": (b"%PDF-1.4\n", "a PDF document"),
    "html": (b"<!DOCTYPE html>\n<html>", "an HTML or XML document .perhaps the error page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4\n", "git lfs pull"),
    "jpg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG image"),
    "bin": (bytes(range(256)) * 9, "binary data"),
}


@pytest.mark.parametrize(("data", "message"), BINARY.values(), ids=BINARY)
def test_files_that_are_not_text_are_named(tmp_path, data, message):
    for name in ("captions.txt", "captions.csv"):
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path, data, name, skip_invalid=True)
        assert "skip" not in str(error.value)
    with pytest.raises(ValueError, match=message.split(" that")[0]):
        read(tmp_path, data, format="text")


def test_damaged_gzip_is_named(tmp_path):
    data = gzip.compress("\n".join(f"a dog {i * i}" for i in range(30000)).encode())
    assert len(read(tmp_path, data)) == 30000
    for broken in (data[: len(data) // 2], data[:-8] + bytes(8)):
        with pytest.raises(ValueError, match="its gzip data are damaged or cut off"):
            read(tmp_path, broken)


def test_coco_files_in_other_encodings_keep_their_images(tmp_path):
    content = json.dumps(COCO, ensure_ascii=False)
    for data in (content.encode("utf-8-sig"), gzip.compress(content.encode("utf-16"))):
        images = read_coco_images(write(tmp_path, data))
        assert images == [("1", "a.jpg", ["un café"])]
    path = write(tmp_path, content.encode("cp1252"))
    assert read_coco_images(path, "cp1252") == [("1", "a.jpg", ["un café"])]
    with pytest.raises(ValueError, match=r"captions:1: not UTF-8 .*Latin-1: save it as UTF-8"):
        read_coco_images(path)


def test_another_file_gets_the_options_that_it_needs(tmp_path):
    main = CaptionFile(
        write(tmp_path, CHINESE.encode("gbk")),
        column="Text",
        skip_invalid=True,
        format="text",
        encoding="gbk",
    )
    table = "id,Text\n1,两只狗在草地上\n2\n"
    for name, data in (("gbk", table.encode("gbk")), ("utf8", table.encode())):
        other = main.with_path(write(tmp_path, data, name))
        assert [caption.text for caption in other] == ["两只狗在草地上"]
        assert other.format_name() == "table"
    odd = main.with_path(write(tmp_path, "1. dog\n2. cat\n", "odd"))
    assert [caption.text for caption in odd] == ["1. dog", "2. cat"]
