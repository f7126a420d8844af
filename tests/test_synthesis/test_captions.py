import json

import pytest

from pcm_plugin.synthesis.captions import (
    Caption,
    read_captions,
    read_coco_images,
    write_coco_captions,
)


def read(tmp_path, content):
    path = tmp_path / "captions"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_captions(path))


def test_plain_text_has_line_numbers_as_ids(tmp_path):
    content = "\ufeffA dog.\n\n  two\tcats \r\n[three] {birds}"
    assert read(tmp_path, content) == [
        Caption("1", "1", "A dog."),
        Caption("3", "3", "two cats"),
        Caption("4", "4", "[three] {birds}"),
    ]


def test_jsonl_takes_ids_where_given(tmp_path):
    rows = [
        {"caption": "a dog"},
        {"caption": "ein Hund \U0001f415", "image_id": 7},
        {"caption": " "},
        {"caption": "a cat", "id": "x", "image_id": "y"},
        {"caption": "a bird", "id": "z"},
    ]
    assert read(tmp_path, "\n".join(map(json.dumps, rows))) == [
        Caption("1", "1", "a dog"),
        Caption("2", "7", "ein Hund \U0001f415"),
        Caption("x", "y", "a cat"),
        Caption("z", "z", "a bird"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"caption": "a"}\noops', r"captions:2: not a JSON object: 'oops'"),
        ('{"caption": "a"}\n{"text": "b"}', r"captions:2: no \"caption\", only \['text'\]"),
        (b"a dog\na \xff cat\n", r"captions:2: not UTF-8"),
        ('{\n"annotations": [\n', r"captions:\d: neither JSON nor JSONL"),
        ('{\n"images": []}', r"JSON without \"annotations\""),
        ('{"annotations": [{"id": 1}]}', r"annotations\[0\]: no \"caption\""),
        ('{"annotations": ["a dog"]}', r"annotations\[0\]: not a JSON object: 'a dog'"),
        ('[{"caption": "a dog"}]', "captions: a JSON list: give COCO captions JSON, JSONL"),
        ('[\n{"caption": "a dog"}\n]', "captions: a JSON list"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_an_empty_file_has_no_captions(tmp_path):
    assert read(tmp_path, "") == []


def test_coco_file_round_trip(tmp_path):
    path = tmp_path / "new" / "captions.json"
    write_coco_captions(path, [(3, "a/3.png", ["x", "y"]), ("k", "k.png", [])])
    assert read_coco_images(path) == [("3", "a/3.png", ["x", "y"]), ("k", "k.png", [])]
    assert [c[:2] for c in read_captions(path)] == [("1", "3"), ("2", "3")]
    with pytest.raises(ValueError, match="two images have the id 3"):
        write_coco_captions(path, [(3, "a", []), (3, "b", [])])
    path.write_text('{"annotations": []}')
    with pytest.raises(ValueError, match="not a COCO captions file: no 'images'"):
        read_coco_images(path)
    path.write_text('{"images": [], "annotations": [{"image_id": 2, "caption": "a"}]}')
    with pytest.raises(ValueError, match='an annotation has image_id=2, which is none of its "im'):
        read_coco_images(path)
