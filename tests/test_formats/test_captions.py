import gzip
import json
import tracemalloc

import pytest

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.coco import read_coco_images, write_coco_captions
from tests.test_formats.caption_files import read, write


def test_plain_text_has_line_numbers_as_ids(tmp_path):
    content = "\ufeffA dog.\n\n  two\tcats \r\n[three] {birds}"
    assert read(tmp_path, content) == [
        Caption("1", "1", "A dog."),
        Caption("3", "3", "two cats"),
        Caption("4", "4", "[three] {birds}"),
    ]


def test_jsonl_uses_the_ids_in_the_file(tmp_path):
    rows = [
        {"caption": "a dog"},
        {"caption": "ein Hund \U0001f415", "image_id": 7},
        {"caption": " "},
        {"caption": "a cat", "id": "x", "image_id": "y"},
        {"caption": "a bird", "id": "z", "file_name": "birds/z.jpg"},
    ]
    assert read(tmp_path, "\n".join(map(json.dumps, rows))) == [
        Caption("1", "1", "a dog"),
        Caption("2", "7", "ein Hund \U0001f415"),
        Caption("x", "y", "a cat"),
        Caption("z", "birds/z", "a bird", "birds/z.jpg"),
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_coco_captions_keep_the_annotations_ids(tmp_path, indent):
    content = {
        "images": [{"id": 5, "file_name": "5.jpg"}],
        "annotations": [
            {"id": 11, "image_id": 5, "caption": "a dog\n"},
            {"id": 12, "image_id": 5, "caption": "the dog"},
        ],
    }
    assert read(tmp_path, json.dumps(content, indent=indent)) == [
        Caption("11", "5", "a dog"),
        Caption("12", "5", "the dog"),
    ]


def karpathy(cocoid=True):
    images = []
    for i, split in enumerate(("train", "val", "restval", "test")):
        sentences = [{"raw": f"{split} {j} .", "sentid": 10 * i + j} for j in range(2)]
        image = {"filename": f"{i}.jpg", "split": split, "sentences": sentences, "imgid": i}
        if cocoid:
            image |= {"cocoid": 100 + i, "filepath": "val2014"}
        images.append(image)
    return json.dumps({"images": images, "dataset": "coco"})


def test_karpathys_json_yields_only_the_training_split(tmp_path):
    assert read(tmp_path, karpathy()) == [
        Caption("0", "100", "train 0 .", "val2014/0.jpg"),
        Caption("1", "100", "train 1 .", "val2014/0.jpg"),
        Caption("20", "102", "restval 0 .", "val2014/2.jpg"),
        Caption("21", "102", "restval 1 .", "val2014/2.jpg"),
    ]
    assert read(tmp_path, karpathy(cocoid=False), split="test") == [
        Caption("30", "3", "test 0 .", "3.jpg"),
        Caption("31", "3", "test 1 .", "3.jpg"),
    ]
    report = CaptionFile(tmp_path / "captions", split="val").scan()
    assert str(report).endswith("(Karpathy's JSON): 2 captions, 6 of other splits")
    with pytest.raises(
        ValueError,
        match=r"split must be one of \['restval', 'test', 'train', 'val'\], got 'dev'",
    ):
        read(tmp_path, karpathy(), split="dev")
    with pytest.raises(
        ValueError,
        match="split must be None or 'all' since this plain text has no splits, got 'val'",
    ):
        read(tmp_path, "a dog\na cat", split="val")


def test_flickr_token_files(tmp_path):
    content = "a.jpg#0\tA dog .\na.jpg#1\tThe dog .\n\nb_1.png#0\tA cat .\n"
    assert read(tmp_path, content) == [
        Caption("a.jpg#0", "a", "A dog .", "a.jpg"),
        Caption("a.jpg#1", "a", "The dog .", "a.jpg"),
        Caption("b_1.png#0", "b_1", "A cat .", "b_1.png"),
    ]


@pytest.mark.parametrize("mark", [",", "\t", ";", "|"])
def test_tables_with_a_named_column(tmp_path, mark):
    rows = [["image", "text", "split"], ["1.jpg", '"a dog{}, a ""good"" one"', "train"]]
    rows += [["2.jpg", '"two\nlines"', "test"], ["3.jpg", "a cat", "train"]]
    content = "\n".join(mark.join(row) for row in rows).replace("{}", mark)
    found = read(tmp_path, content, column="text")
    # White space in a caption becomes one space, a tab too.
    text = f'a dog{" " if mark == chr(9) else mark}, a "good" one'
    assert found == [Caption("2", "1", text, "1.jpg"), Caption("5", "3", "a cat", "3.jpg")]
    with pytest.raises(
        ValueError, match=r"no column 'caption' in the first line, which has \['ima"
    ):
        read(tmp_path, content, "captions.csv")


def test_captions_are_cleaned(tmp_path):
    content = "cafe\u0301\x1bbar\n一只狗 \U0001f415\u200d\U0001f9ba\na man&#39;s ca\u00adr<br>"
    assert read(tmp_path, content) == [
        Caption("1", "1", "caf\u00e9 bar"),
        Caption("2", "2", "一只狗 \U0001f415\u200d\U0001f9ba"),
        Caption("3", "3", "a man's car"),
    ]


def test_scan_counts_unusual_captions(tmp_path):
    rows = [
        "a.jpg#0\ta dog",
        "a.jpg#2\ta dog",
        "a.jpg#1\t ",
        "b.jpg#0\ta d\ufffdg",
        "a dog",
        "x\ty",
    ]
    path = write(tmp_path, "\n".join(rows))
    report = CaptionFile(path, skip_invalid=True).scan()
    assert str(report) == (
        f"{path} (Flickr token file): 3 captions, 1 blank, 1 duplicates, 1 with U+FFFD, which "
        "stands for characters that an earlier conversion lost, 2 invalid, skipped\n"
        f"  {path}:5: not FILE#NUMBER, one tab, a caption: 'a dog'\n"
        f"  {path}:6: not FILE#NUMBER, one tab, a caption: 'x\\ty'"
    )
    with pytest.raises(ValueError, match=r"captions:5: not FILE#NUMBER.*\(skip_invalid=True skips"):
        CaptionFile(path).scan()
    with pytest.raises(ValueError, match=r"captions:5: not FILE#NUMBER.*\(--skip-invalid skips"):
        CaptionFile(path, options={"skip_invalid": "--skip-invalid"}).scan()


def test_files_of_other_programs(tmp_path):
    pandas = "\tcaption\n0\ta dog\n1\ta cat\n"
    assert [c.text for c in read(tmp_path, pandas)] == ["a dog", "a cat"]
    assert [c.id for c in read(tmp_path, "\n\ncaption,x\na,1\nb,2\n")] == ["4", "5"]
    with_line_separator = json.dumps({"caption": "a\u2028dog"}, ensure_ascii=False)
    assert [c.text for c in read(tmp_path, with_line_separator)] == ["a dog"]
    assert read(tmp_path, "a.jpg#0\t\na.jpg#1\ta dog")[0].file_name == "a.jpg"
    numbered = json.dumps({"caption": "a dog", "image": 7, "image_id": 8})
    assert read(tmp_path, numbered) == [Caption("1", "8", "a dog", "7")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"caption": "half \\ud800"}', r"captions:1: not Unicode"),
        (b"caption,image\na dog,caf\xe9.jpg\n", r"captions:2: not UTF-8"),
        ('{"caption": "a"}\noops', r"captions:2: not JSON: 'oops'"),
        (
            '{"caption": "a"}\n{"text": "b"}',
            r"captions:2: no field 'caption', only \['text'\]: pass column='text'",
        ),
        (b"a dog\na \xff cat\n", r"captions:2: not UTF-8"),
        (b"caption,id\n\xff,1\n", r"captions:2: not UTF-8"),
        ("caption,id\na,1\nb\n", r"captions:3: 1 fields, the first line has 2"),
        ('{\n"annotations": [\n', r"captions: broken JSON"),
        ('{"annotations": [{"id": 1, "caption": "a"}, {"id', r"captions: broken JSON"),
        ('{"ann', r"captions: neither JSON nor JSONL"),
        ('{\n"images": []}', r"captions: a JSON object with \['images'\]: neither COCO's"),
        ('{"annotations": [{"id": 1}]}', r"captions: annotations\[0\]: no text under \"caption\""),
        ('{"annotations": ["a dog"]}', r"annotations\[0\]: not a JSON object: 'a dog'"),
        ('{"images": [{"sentences": []}]}', r"captions: images\[0\]: no \"filename\""),
        ("a dog\na \0cat\na bird", r"captions:2: a NUL byte: the file is damaged"),
        ("a dog\na red\rcat\na bird", r"captions:2: a carriage return within the line"),
        (
            "a dog\n" + "very " * 3000,
            r"captions:2: a caption of 14,999 characters, more than 1,000",
        ),
    ],
)
def test_invalid_captions_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("content", ["", "\n \n", '{"annotations": []}', "caption,id\n"])
def test_a_file_without_captions_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"no captions in .*: 0 captions"):
        CaptionFile(write(tmp_path, content)).scan()
    with pytest.raises(FileNotFoundError, match="no caption file at"):
        CaptionFile(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "form",
    [
        *("text", "jsonl", "coco", "karpathy", "tokens", "table", "quoted", "gzip", "utf-16"),
    ],
)
def test_memory_does_not_grow_with_the_corpus(tmp_path, form):
    def corpus(count):
        texts = [f"a dog and {i} cats on a mat" for i in range(count)]
        if form == "text":
            return "\n".join(texts)
        if form == "jsonl":
            return "\n".join(json.dumps({"caption": text}) for text in texts)
        if form == "coco":
            rows = [{"id": i, "image_id": i, "caption": text} for i, text in enumerate(texts)]
            return json.dumps({"images": [{"id": i} for i in range(count)], "annotations": rows})
        if form == "quoted":
            rows = (f'{i},"{text}, ""good"""' for i, text in enumerate(texts))
            return "id,caption\n" + "\n".join(rows)
        if form == "gzip":
            return gzip.compress(json.dumps(texts).encode())
        if form == "utf-16":
            return "\n".join(texts).encode("utf-16")
        if form == "tokens":
            return "\n".join(f"{i}.jpg#0\t{text}" for i, text in enumerate(texts))
        if form == "table":
            return "caption,id\n" + "\n".join(f"{text},{i}" for i, text in enumerate(texts))
        images = [
            {"filename": f"{i}.jpg", "sentences": [{"raw": text}]} for i, text in enumerate(texts)
        ]
        return json.dumps({"images": images})

    peaks = []
    for count in (4000, 16000):
        file = CaptionFile(write(tmp_path, corpus(count)))
        tracemalloc.start()
        assert file.scan().captions == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 50_000


def test_coco_file_round_trip(tmp_path):
    path = tmp_path / "new" / "captions.json"
    write_coco_captions(path, [(3, "a/3.png", ["x", "y"]), ("k", "k.png", [])])
    assert read_coco_images(path) == [("3", "a/3.png", ["x", "y"]), ("k", "k.png", [])]
    assert [c[:2] for c in CaptionFile(path)] == [("1", "3"), ("2", "3")]
    write_coco_captions(path, [("42", "a", []), ("007", "b", [])])
    assert [image["id"] for image in json.loads(path.read_text())["images"]] == [42, "007"]
    with pytest.raises(ValueError, match="image ids must be unique, got 3 twice"):
        write_coco_captions(path, [(3, "a", []), ("3", "b", [])])
    path.write_text('{"annotations": []}')
    with pytest.raises(ValueError, match="not a COCO captions file: no 'images'"):
        read_coco_images(path)
    images = [{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}]
    path.write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(ValueError, match="ids of \"images\" must be unique, but '1' is repeated"):
        read_coco_images(path)
    path.write_text('{"images": [], "annotations": [{"image_id": 2, "caption": "a"}]}')
    with pytest.raises(ValueError, match='an annotation has image_id=2, which is none of its "im'):
        read_coco_images(path)
