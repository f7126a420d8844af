import json

import pytest

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.lines import write_jsonl
from pcm_plugin.formats.captions.record import Caption
from tests.test_formats.caption_files import read, write


def as_table(rows, fields):
    lines = [fields, *([str(row.get(field, "")) for field in fields] for row in rows)]
    return "\n".join(map(",".join, lines))


def as_jsonl(rows, fields):
    return "\n".join(map(json.dumps, rows))


def as_list(rows, fields):
    return json.dumps(rows)


LAYOUTS = pytest.mark.parametrize("layout", [as_table, as_jsonl, as_list])


@LAYOUTS
def test_repeated_ids_are_taken_as_image_ids(tmp_path, layout):
    rows = [{"id": i, "caption": text} for i, text in [(1, "a"), (1, "b"), (2, "c"), (1, "d")]]
    expected = [("1#1", "1", "a"), ("1#2", "1", "b"), ("2#1", "2", "c"), ("1#3", "1", "d")]
    captions = read(tmp_path, layout(rows, ["id", "caption"]))
    assert captions == [Caption(*row) for row in expected]
    report = str(CaptionFile(tmp_path / "captions").scan())
    assert "ids are repeated: taken as ids of images, whose captions get ID#1, ID#2, ..." in report
    # Also where the image's file stands next to its id.
    rows = [row | {"image": f"{row['id']}.jpg"} for row in rows]
    captions = read(tmp_path, layout(rows, ["id", "caption", "image"]))
    assert captions == [Caption(*row, f"{row[1]}.jpg") for row in expected]
    write_jsonl(CaptionFile(tmp_path / "captions"), tmp_path / "out.jsonl")
    assert list(CaptionFile(tmp_path / "out.jsonl")) == captions


@LAYOUTS
def test_repeated_ids_of_different_images_are_refused(tmp_path, layout):
    rows = [
        {"id": "u", "caption": "a", "image_id": 1},
        {"id": "v", "caption": "b", "image_id": 2},
        {"id": "v", "caption": "c", "image_id": 3},
    ]
    content = layout(rows, ["id", "caption", "image_id"])
    with pytest.raises(
        ValueError, match=r"id 'v' is also used in (line )?\S+ \(skip_invalid=True skips"
    ):
        read(tmp_path, content)
    assert [c.text for c in read(tmp_path, content, skip_invalid=True)] == ["a", "b"]
    report = CaptionFile(tmp_path / "captions", skip_invalid=True).scan()
    assert (report.captions, report.invalid) == (2, 1)


@LAYOUTS
def test_captions_without_an_id_get_their_number(tmp_path, layout):
    rows = [{"caption": "a"}, {"id": "", "caption": "b"}, {"id": "x", "caption": "c"}]
    rows += [{"id": "NaN", "caption": "d", "image_id": "null"}]
    first = 2 if layout is as_table else 1
    captions = read(tmp_path, layout(rows, ["id", "caption", "image_id"]))
    assert captions == [
        Caption(str(first), str(first), "a"),
        Caption(str(first + 1), str(first + 1), "b"),
        Caption("x", "x", "c"),
        Caption(str(first + 3), str(first + 3), "d"),
    ]
    rows.append({"id": first, "caption": "e"})
    with pytest.raises(ValueError, match=rf"id '{first}' is also used in (line )?\S+"):
        read(tmp_path, layout(rows, ["id", "caption", "image_id"]))


def test_null_and_odd_ids(tmp_path):
    rows = [{"id": None, "image_id": None, "caption": "a"}, {"id": 7.0, "caption": "b"}]
    assert read(tmp_path, "\n".join(map(json.dumps, rows))) == [
        Caption("1", "1", "a"),
        Caption("7", "7", "b"),
    ]
    for odd in (True, [1], {"a": 1}):
        content = json.dumps([{"id": odd, "caption": "a"}])
        with pytest.raises(ValueError, match=r"\[0\]: an id must be a number or a text, got"):
            read(tmp_path, content)


def test_repeated_ids_in_other_formats_are_refused(tmp_path):
    flickr = "a.jpg#0\tA dog\nb.jpg#0\tA cat\na.jpg#0\tA car\n"
    with pytest.raises(ValueError, match=r"captions:3: id 'a.jpg#0' is also used in line 1"):
        read(tmp_path, flickr)
    assert [c.text for c in read(tmp_path, flickr, skip_invalid=True)] == ["A dog", "A cat"]
    images = [{"filename": "a.jpg", "sentences": [{"raw": t, "sentid": 3}]} for t in "xy"]
    with pytest.raises(
        ValueError, match=r"images\[1\].sentences\[0\]: id '3' is also used in images"
    ):
        read(tmp_path, json.dumps({"images": images}))


def coco(images, annotations):
    keys = ("id", "image_id", "caption")
    return json.dumps(
        {
            "images": [{"id": i, "file_name": name} for i, name in images],
            "annotations": [dict(zip(keys, row, strict=True)) for row in annotations],
        }
    )


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        (
            [(1, "x.png"), (1, "x.jpg"), (2, "y.png")],
            [(1, 1, "a kitten"), (2, 1, "a ball"), (3, 2, "a bed")],
            r"ids of \"images\" must be unique, but '1' is repeated \(images\[0\], images\[1\]\)",
        ),
        ([(1, "x.png"), ("1", "y.png")], [(1, 1, "a")], "ids of .images. must be unique, but '1'"),
        (
            [(1, "x.png")],
            [(1, 1, "a"), (1, 1, "b")],
            r"annotations\[1\]: id '1' is also used in annot",
        ),
        (
            [(1, "x.png")],
            [(1, 2, "a")],
            r"an annotation has image_id='2', which is none.*\(annotations\[0\]\)",
        ),
        ([(1, "x.png"), (None, "y")], [(1, 1, "a")], r"images\[1\] has no \"id\""),
        ([(1, "x.png")], [(1, None, "a")], r"annotations\[0\] has no \"image_id\""),
    ],
)
def test_coco_ids_must_agree(tmp_path, images, annotations, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, coco(images, annotations))
    with pytest.raises(ValueError, match=message):
        CaptionFile(tmp_path / "captions").scan()


def test_a_changed_file_is_scanned_again(tmp_path):
    file = CaptionFile(write(tmp_path, "id,caption\n1,a\n2,b\n"))
    assert [caption.id for caption in file] == ["1", "2"]
    write(tmp_path, "id,caption\n1,a\n1,b\n2,c\n")
    assert [caption.id for caption in file] == ["1#1", "1#2", "2#1"]
