import json

import pytest
from PIL import Image

from pcm_plugin.evaluation.references import References
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.synthesis.extract.open_source import open_source

NAMES = ["val2014/a.jpg", "val2014/b.jpg", "val2014/c.jpg"]


@pytest.fixture
def images(tmp_path):
    for name in NAMES:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "images" / "val2014" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def read(source):
    return [
        (image.image_id, image.name, image.captions)
        for shard in source.shards
        for image in source.read(shard)
    ]


def test_a_coco_tree_with_karpathys_splits(tmp_path, images):
    entries = [
        {
            "filepath": "val2014",
            "filename": name.partition("/")[2],
            "cocoid": 7 + i,
            "split": split,
            "sentences": [{"raw": f"caption {i} {j}", "sentid": 9 * i + j} for j in range(2)],
        }
        for i, (name, split) in enumerate(zip(NAMES, ("train", "val", "val"), strict=True))
    ]
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": entries}))
    source = open_source(images, CaptionFile(path, split="val"), shard_size=1)
    assert [shard.count for shard in source.shards] == [1, 1]
    assert read(source) == [
        ("8", "val2014/b.jpg", ["caption 1 0", "caption 1 1"]),
        ("9", "val2014/c.jpg", ["caption 2 0", "caption 2 1"]),
    ]
    other = open_source(images, CaptionFile(path), shard_size=1)
    assert other.settings != source.settings


def test_a_folder_with_nocaps_annotations(tmp_path, images):
    captions = tmp_path / "nocaps_val_4500_captions.json"
    entries = [
        {
            "id": i,
            "open_images_id": name,
            "file_name": name,
            "coco_url": "",
            "domain": "near-domain",
        }
        for i, name in enumerate(NAMES)
    ]
    annotations = [
        {"id": 2 * i + j, "image_id": i, "caption": f"caption {i} {j}"}
        for j in range(2)
        for i in range(3)
    ]
    head = {"licenses": [], "info": {"version": "0.1"}}
    captions.write_text(json.dumps({**head, "images": entries, "annotations": annotations}))
    source = open_source(images, captions, 10)
    expected = [(str(i), n, [f"caption {i} 0", f"caption {i} 1"]) for i, n in enumerate(NAMES)]
    assert read(source) == expected
    assert not CaptionFile(captions).has_splits()


def test_a_flickr_tree_with_a_token_file(tmp_path, images):
    path = tmp_path / "tokens.txt"
    path.write_text("a.jpg#0\tone\na.jpg#1\ttwo\nc.jpg#0\tthree\n")
    assert read(open_source(images / "val2014", path, shard_size=9)) == [
        ("a", "a.jpg", ["one", "two"]),
        ("c", "c.jpg", ["three"]),
    ]


def test_a_folder_without_captions(images):
    assert read(open_source(images, "none", shard_size=2)) == [
        ("val2014/a", "val2014/a.jpg", []),
        ("val2014/b", "val2014/b.jpg", []),
        ("val2014/c", "val2014/c.jpg", []),
    ]


def test_files_of_one_stem_are_two_images(tmp_path, images):
    folder = images / "val2014"
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    expected = ["a.jpg", "a.png", "b", "c"]
    assert [row[0] for row in read(open_source(folder, "none", shard_size=9))] == expected
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("a.jpg#0\tone\na.png#0\ttwo\na.jpg#1\tthree\nc.jpg#0\tfour\n")
    table = tmp_path / "table.csv"
    table.write_text("image,caption\na.jpg,one\na.png,two\na.jpg,three\nc.jpg,four\n")
    for path in (tokens, table):
        assert read(open_source(folder, path, shard_size=9)) == [
            ("a.jpg", "a.jpg", ["one", "three"]),
            ("a.png", "a.png", ["two"]),
            ("c", "c.jpg", ["four"]),
        ]


def write_coco(path, images, annotations):
    images = [{"id": i, "file_name": name} for i, name in images]
    rows = enumerate(annotations)
    rows = [{"id": n, "image_id": i, "caption": text} for n, (i, text) in rows]
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    return path


def test_images_that_share_an_id_are_refused_by_name(tmp_path, images):
    folder = images / "val2014"
    joined = write_coco(
        tmp_path / "joined.json",
        [(1, "a.jpg"), (2, "b.jpg"), ("1", "c.jpg")],
        [(1, "one"), (2, "two"), (1, "three")],
    )
    table = tmp_path / "table.csv"
    table.write_text("image_id,image,caption\n1,a.jpg,one\n1,b.jpg,two\n2,c.jpg,three\n")
    with pytest.raises(ValueError, match=r'ids of "images" must be unique, but \'1\' is repeated'):
        open_source(folder, joined, shard_size=9)
    with pytest.raises(ValueError, match=r"id '1' is used for several images: 'a.jpg', 'b.jpg'"):
        open_source(folder, table, shard_size=9)


@pytest.mark.parametrize("image_id", [None, "", True])
def test_an_image_without_an_id_is_refused(tmp_path, images, image_id):
    file = write_coco(tmp_path / "c.json", [(1, "a.jpg"), (image_id, "b.jpg")], [(1, "one")])
    with pytest.raises(ValueError, match=r"images\[1\] has no valid id"):
        open_source(images / "val2014", file, shard_size=9)


def test_an_annotation_of_no_image_is_refused(tmp_path, images):
    file = write_coco(tmp_path / "c.json", [(1, "a.jpg")], [(1, "one"), (2, "two")])
    with pytest.raises(ValueError, match="image_id='2', which is none of its"):
        open_source(images / "val2014", file, shard_size=9)


def test_names_in_another_form_of_unicode_are_found(tmp_path):
    """As of a folder that was copied from macOS."""
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.jpg"
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / decomposed)
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"{composed}#0\tone\n{composed}#1\ttwo\n")
    source = open_source(tmp_path / "images", tokens, shard_size=2)
    assert read(source) == [(composed.partition(".")[0], decomposed, ["one", "two"])]
    (image,) = source.read(source.shards[0])
    assert image.data() == (tmp_path / "images" / decomposed).read_bytes()
    # Where both are listed, each is its own file.
    tokens.write_text(f"{decomposed}#0\tone\n{composed}#0\ttwo\n")
    source = open_source(tmp_path / "images", tokens, shard_size=2)
    assert [name for _, name, _ in read(source)] == [decomposed, composed]


def test_captions_without_an_image_among_others_are_refused(tmp_path, images):
    """Their own ids, here the numbers of their lines, may be those of other images."""
    table = tmp_path / "table.csv"
    table.write_text("image_id,caption\n4,one\n7,two\n,three\n,four\n")
    with pytest.raises(ValueError, match=r"table\.csv:4: 2 captions, the first of them here, name"):
        References(table)
    document = tmp_path / "captions.json"
    rows = [{"id": 1, "image_id": 7, "caption": "one"}, {"id": 7, "caption": "two"}]
    document.write_text(json.dumps({"annotations": rows}))
    with pytest.raises(ValueError, match=r"annotations\[1\]: 1 captions, the first of them here"):
        References(document)
    table.write_text("id,caption\n4,one\n7,two\n")
    assert [image.image_id for image in References(table).images] == ["4", "7"]


def test_captions_that_name_no_images_are_refused(tmp_path, images):
    (tmp_path / "captions.txt").write_text("a dog\n")
    with pytest.raises(ValueError, match="image 1 has no file name; pass COCO captions"):
        open_source(images, tmp_path / "captions.txt", shard_size=2)
    with pytest.raises(FileNotFoundError, match="no caption file at"):
        open_source(images, tmp_path / "nowhere.json", shard_size=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images for"):
        open_source(tmp_path / "empty", "none", shard_size=2)
