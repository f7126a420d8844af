import json

import pytest

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from tests.test_formats.caption_files import read, texts, write

JSON_LISTS = [
    (["a dog", "a cat"], [("1", "1", "a dog", None), ("2", "2", "a cat", None)]),
    (
        [["x.jpg", "a dog"], ["a cat", "y.png"], [7, "a car"], ["im8", ["a", "b"]]],
        [
            ("1", "x", "a dog", "x.jpg"),
            ("2", "y", "a cat", "y.png"),
            ("3", "7", "a car", None),
            ("im8#0", "im8", "a", None),
            ("im8#1", "im8", "b", None),
        ],
    ),
    (  # AI Challenger
        [{"url": "http://x/1", "image_id": "8f.jpg", "caption": ["一个女孩", "两只狗"]}],
        [("8f.jpg#0", "8f", "一个女孩", "8f.jpg"), ("8f.jpg#1", "8f", "两只狗", "8f.jpg")],
    ),
    (  # LAVIS: train, val, NoCaps
        [
            {"caption": "a net ", "image": "val2014/x_9.jpg", "image_id": "coco_9"},
            {"image": "val2014/x_8.jpg", "caption": ["a dog", "the dog"]},
            {"image": "val/7.jpg", "caption": ["a car"], "img_id": 7},
        ],
        [
            ("1", "coco_9", "a net", "val2014/x_9.jpg"),
            ("val2014/x_8.jpg#0", "val2014/x_8", "a dog", "val2014/x_8.jpg"),
            ("val2014/x_8.jpg#1", "val2014/x_8", "the dog", "val2014/x_8.jpg"),
            ("7#0", "7", "a car", "val/7.jpg"),
        ],
    ),
]


@pytest.mark.parametrize(("rows", "expected"), JSON_LISTS)
@pytest.mark.parametrize("layout", ["line", "indented", "jsonl"])
def test_lists_of_texts_pairs_and_objects(tmp_path, rows, expected, layout):
    content = json.dumps(rows, indent=2 if layout == "indented" else None)
    if layout == "jsonl":
        content = "\n".join(map(json.dumps, rows))
        if len(rows) == 1:
            content += "\n" + json.dumps({"caption": " "})
    assert read(tmp_path, content) == [Caption(*row) for row in expected]


NWPU = {
    "airport": [
        {"filename": "airport_1.jpg", "imgid": 0, "raw": "a", "raw_1": "b", "split": "train"},
        {"filename": "airport_2.jpg", "imgid": 1, "raw": "c", "raw_1": "d", "split": "val"},
    ],
    "sea.ice": [{"split": "train", "filename": "ice_1.jpg", "raw": "e", "sentid": 3}],
}


def test_nwpu_captions(tmp_path):
    assert read(tmp_path, json.dumps(NWPU)) == [
        Caption("airport_1#0", "airport_1", "a", "airport/airport_1.jpg"),
        Caption("airport_1#1", "airport_1", "b", "airport/airport_1.jpg"),
        Caption("ice_1#0", "ice_1", "e", "sea.ice/ice_1.jpg"),
    ]
    assert texts(tmp_path, json.dumps(NWPU), split="val") == ["c", "d"]
    assert CaptionFile(tmp_path / "captions").format_name() == "NWPU-Captions JSON"


def test_textcaps(tmp_path):
    rows = [
        {"image_id": "a1", "caption_id": 4, "caption_str": "a sign", "set_name": "train"},
        {"image_id": "a1", "caption_id": 5, "caption_str": "the sign", "set_name": "train"},
        {"image_id": "b2", "set_name": "train", "reference_strs": ["x", "y"]},
        {"image_id": "c3", "caption_id": 6, "caption_str": "z", "set_name": "val"},
    ]
    content = json.dumps({"dataset_type": "train", "data": rows})
    assert read(tmp_path, content) == [
        Caption("4", "a1", "a sign", "a1.jpg"),
        Caption("5", "a1", "the sign", "a1.jpg"),
        Caption("b2#0", "b2", "x", "b2.jpg"),
        Caption("b2#1", "b2", "y", "b2.jpg"),
    ]
    assert texts(tmp_path, content, split="val") == ["z"]


def test_rejected_captions_of_vizwiz_are_skipped_and_counted(tmp_path):
    rows = [
        {"caption": "too poor", "is_precanned": True, "is_rejected": False},
        {"caption": "a can", "is_precanned": False, "is_rejected": False},
        {"caption": "asdf", "is_precanned": False, "is_rejected": True},
    ]
    rows = [{"id": i, "image_id": 0, **row} for i, row in enumerate(rows)]
    coco = json.dumps({"images": [{"id": 0, "file_name": "V_0.jpg"}], "annotations": rows})
    for content in (coco, json.dumps(rows), "\n".join(map(json.dumps, rows))):
        assert texts(tmp_path, content) == ["a can"]
        report = str(CaptionFile(tmp_path / "captions").scan())
        assert "1 captions, 2 rejected or canned, skipped" in report


def test_captions_by_image(tmp_path):
    content = json.dumps({"a.jpg": ["x y", "z"], "im7": "q"}, indent=1)
    assert read(tmp_path, content) == [
        Caption("a.jpg#0", "a", "x y", "a.jpg"),
        Caption("a.jpg#1", "a", "z", "a.jpg"),
        Caption("im7#0", "im7", "q"),
    ]
    with pytest.raises(ValueError, match="'meta': not the name or the id of an image"):
        read(tmp_path, json.dumps({"a.jpg": ["x y"], "meta": ["z"]}))


def test_flickr8k_cn_and_similar_files(tmp_path):
    content = "11.jpg#zhb#0 一个女孩\n11.jpg#zhb#1 \n12.jpg#enb2zh#0 two dogs\nCOCO_7#zhm#0\t猫\n"
    assert read(tmp_path, content) == [
        Caption("11.jpg#zhb#0", "11", "一个女孩", "11.jpg"),
        Caption("12.jpg#enb2zh#0", "12", "two dogs", "12.jpg"),
        Caption("COCO_7#zhm#0", "COCO_7", "猫", "COCO_7"),
    ]


def test_flickr_files_with_odd_spacing(tmp_path):
    content = " a.jpg#0 \t A dog .\nb c.jpg#1\tA  cat .\r\nd.jpg.1#2  A car\ne.jpg #3\tA bus\n"
    assert read(tmp_path, content) == [
        Caption("a.jpg#0", "a", "A dog .", "a.jpg"),
        Caption("b c.jpg#1", "b c", "A cat .", "b c.jpg"),
        Caption("d.jpg.1#2", "d.jpg.1", "A car", "d.jpg.1"),
        Caption("e.jpg #3", "e", "A bus", "e.jpg"),
    ]
    # Two records run together, as in one line of Flickr8k.
    lines = "a.jpg#0\tA dog .\nb.jpg#4\tA man c.jpg#0\tA cat\nd.jpg#1 A man e.jpg#1 A bus\n"
    path = write(tmp_path, lines)
    assert [c.id for c in CaptionFile(path, skip_invalid=True)] == ["a.jpg#0"]
    with pytest.raises(ValueError, match="captions:2: not FILE#NUMBER"):
        list(CaptionFile(path))


def test_a_first_line_of_any_length(tmp_path):
    rows = [json.dumps({"features": [0.5] * 20000, "caption": text}) for text in "ab"]
    assert texts(tmp_path, "\n".join(rows)) == ["a", "b"]
    assert texts(tmp_path, json.dumps(["a dog"] * 20000)) == ["a dog"] * 20000


def test_one_bad_line_at_the_top_does_not_change_the_format(tmp_path):
    content = "oops\na.jpg#0\tA dog .\nb.jpg#0\tA cat .\n"
    assert texts(tmp_path, content, skip_invalid=True) == ["A dog .", "A cat ."]
    with pytest.raises(ValueError, match="captions:1: not FILE#NUMBER"):
        read(tmp_path, content)


def test_plain_text(tmp_path):
    for content in ("two dogs\na cat, a bird\n", "2 dogs, 3 cats\n[three] {birds}\n(no)\n#4 wins"):
        assert len(read(tmp_path, content)) == content.strip().count("\n") + 1
    assert texts(tmp_path, "a red car", "captions.txt") == ["a red car"]
    assert texts(tmp_path, "a red car", format="text") == ["a red car"]
    assert texts(tmp_path, "x.jpg a\ny.jpg b\n", format="text") == ["x.jpg a", "y.jpg b"]
    assert texts(tmp_path, '"a dog"\n"a ""big"" cat"\n') == ['"a dog"', '"a ""big"" cat"']


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("a red car", "captions", "one line without a supported format.*format='text'"),
        ("a dog\na cat", "captions.json", "neither JSON nor JSONL.*format='text'"),
        ("a dog\na cat", "captions.csv", r"no column 'caption' in the first line.*\['a dog'\]"),
        ("a.jpg a dog\nb.jpg a cat\n", "captions.txt", "lines begin with the name of an image"),
        ("a.jpg,a dog\nb.jpg,a cat\n", "captions.txt", "lines begin with the name of an image"),
        ("a dog|a.jpg\na cat|b.jpg\n", "captions.txt", "each line has 2 fields"),
        ("a dog, a.jpg\na cat, b.jpg\n", "captions.txt", "lines end with the name of an image"),
        ("a.jpg\nb.jpg\n", "captions.txt", "lines begin with the name of an image"),
        ("x\ta dog\ny\ta cat\n", "captions.txt", "each line has 2 fields.*format='text'"),
        ("1,a dog\n2,a cat\n", "captions.txt", "lines begin with an id or a number"),
        ("1. a dog\n2. a cat\n", "captions.txt", "lines begin with an id or a number"),
        ("000042 a dog\n000043 a cat\n", "captions.txt", "lines begin with an id or a number"),
        ("10_69b a dog\n11_f0c a cat\n", "captions.txt", "lines begin with an id or a number"),
        ("- caption: a dog\n- caption: a cat\n", "captions.txt", "names and values, as in YAML"),
        ("<p>a dog</p>\n<p>a cat</p>\n", "captions.txt", "lines are tags"),
        ("{'caption': 'a dog'}\n{'caption': 'a cat'}\n", "captions.txt", "Python or other code"),
        ("1\n00:01 --> 00:02\na dog\n\n", "captions.txt", "are times, as in subtitles"),
        (
            "image,Caption\na.jpg,a dog\n",
            "captions.txt",
            r"\['image', 'Caption'\]: pass column='Ca",
        ),
        ("image|comment_number|comment\n", "captions.txt", "pass column='comment'"),
        ("id;text_en\n1;a dog\n", "captions.csv", "pass column='text_en'"),
        ("Text\na dog\n", "captions.txt", "pass column='Text' or format='text'"),
        ("caption,caption\na,b\n", "captions.csv", "two columns are named 'caption'"),
        ('{"text": "a dog"}\n', "captions.txt", r"\['text'\].*pass column='text'"),
        (
            '{"text": "a dog"}\n{"text": "b"}',
            "c",
            r"c:1: no field 'caption', only \['text'\]: pass",
        ),
        ("1\n2\n3\n", "captions.txt", "lines have no letters"),
        ("a dog\thttp://x\n", "cc3m.tsv", "a table needs a first line that names its columns"),
        ('{"image_urls": ["x"], "captions": ["a dog"]}', "captions", "a JSON object with"),
        ('{\n"caption": "a"\n}\n{\n"caption": "b"\n}', "captions", "not one per line: write JSONL"),
        ('{"caption": "a"},\n{"caption": "b"},\n', "captions", "not one per line: write JSONL"),
        ('["a.jpg", "b.jpg"]', "captions", "the name of an image file, not a caption"),
        ('[["a", "b", "c"]]', "captions", "a list of 3, not a pair"),
        ('[["a dog", "a cat"]]', "captions", "which part of the pair is the image"),
        ("[1, 2]", "captions", "no text in the pair but '2'"),
        ("[\n1, 2]", "captions", "not a JSON object, a text or a pair: '1'"),
        ('[{"caption": 7}]', "captions", r"\[0\]: no text under 'caption' but '7'"),
        ("x" * 70000, "captions.txt", "a line of more than 65,536 bytes"),
    ],
)
def test_unsupported_formats_are_refused_with_advice(tmp_path, content, name, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content, name)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"format must be one of .*'table'.*, got 'csv'"):
        CaptionFile(write(tmp_path, "a"), format="csv")
