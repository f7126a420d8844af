"""Output formats of pcm caption, read with the tools for which they are written."""

import csv
import json
from pathlib import Path

import pandas
import pytest

from pcm_plugin.formats.captions.caption_file import CaptionFile
from tests.test_tools.test_caption import command, inferencer, photos, pictures  # noqa: F401


@pytest.fixture
def rows(command, photos, tmp_path):  # noqa: F811
    """Return the rows of the COCO results file with two captions per image."""
    assert command(photos, "--num-captions", 2, "--out", tmp_path / "all.json")[0] == 0
    return json.loads((tmp_path / "all.json").read_text())


def test_jsonl_has_the_values_of_coco_results(command, photos, tmp_path, rows):  # noqa: F811
    out = tmp_path / "captions.jsonl"
    assert command(photos, "--num-captions", 2, "--out", out)[0] == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    frame = pandas.read_json(out, lines=True)
    assert frame["caption"].tolist() == [row["caption"] for row in rows]


def test_csv_has_a_line_per_caption(command, photos, tmp_path, rows):  # noqa: F811
    out = tmp_path / "captions.csv"
    assert command(photos, "--num-captions", 2, "--out", out)[0] == 0
    frame = pandas.read_csv(out)
    assert frame["rank"].tolist() == [1, 2] * len(rows)
    captions = [c["caption"] for row in rows for c in row["captions"]]
    assert frame["caption"].tolist() == captions
    assert frame["log_prob"].tolist() == [c["log_prob"] for r in rows for c in r["captions"]]
    assert frame["image_id"].tolist() == [row["image_id"] for row in rows for _ in range(2)]
    # It is a caption file for the other commands too.
    assert [caption.text for caption in CaptionFile(out)] == captions


def test_metadata_names_files_in_its_folder(command, photos, tmp_path, rows):  # noqa: F811
    datasets = pytest.importorskip("datasets")
    out = photos / "metadata.jsonl"
    assert command(photos, "--num-captions", 2, "--out", out)[0] == 0
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(photos), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["text"] == [row["caption"] for row in rows]
    assert [Path(image.filename).name for image in loaded["image"]] == [
        Path(row["image"]).name for row in rows
    ]


def test_metadata_is_not_replaced_without_being_asked(command, photos, tmp_path):  # noqa: F811
    out = photos / "metadata.jsonl"
    out.write_text("mine")
    code, _, _ = command(photos, "--out", out)
    assert code == f"{out} exists: pass --overwrite to replace it"
    assert out.read_text() == "mine"
    assert command(photos, "--out", out, "--overwrite")[0] == 0
    first = json.loads(out.read_text().splitlines()[0])
    assert first.keys() == {"file_name", "text"}
    assert first["file_name"] == "0.png"
    code, _, _ = command(photos, "--out", tmp_path / "other" / "metadata.jsonl")
    assert "can only list images in its own folder" in code
    assert not (tmp_path / "other").exists()


def test_text_files_hold_the_captions(command, photos, tmp_path, rows):  # noqa: F811
    for extra in ((), ("--out", tmp_path / "again.json")):
        assert command(photos, "--num-captions", 2, "--text-files", *extra)[0] == 0
        for row in rows:
            text = Path(row["image"]).with_suffix(".txt")
            assert text.read_text().splitlines() == [c["caption"] for c in row["captions"]]
            text.unlink()


def test_existing_text_files_are_kept(command, photos, inferencer, monkeypatch):  # noqa: F811
    whole = [photos, "--batch-size", 2, "--text-files"]
    assert command(*whole)[0] == 0
    texts = {path: path.read_text() for path in sorted(photos.glob("*.txt"))}
    assert len(texts) == 6
    # As after an interruption in the second batch; and a text of the user's own.
    _, second, third, *_ = texts
    second.write_text("mine")
    third.unlink()
    batches = []
    forward = inferencer.forward
    monkeypatch.setattr(
        inferencer, "forward", lambda images, **kw: batches.append(images) or forward(images, **kw)
    )
    code, _, errors = command(*whole)
    assert code == 0
    assert "5 images have a text file, which is kept" in errors
    assert [len(batch) for batch in batches] == [2]
    assert {path: path.read_text() for path in texts} == {**texts, second: "mine"}
    assert command(*whole, "--overwrite")[0] == 0
    assert {path: path.read_text() for path in texts} == texts
    batches.clear()
    assert command(*whole)[0] == 0
    assert not batches
    # Drawings show all images.
    sheet = photos.parent / "sheet.png"
    assert command(*whole, "--sheet", sheet)[0] == 0
    assert sum(map(len, batches)) == 6
    assert sheet.exists()
    assert {path: path.read_text() for path in texts} == texts


def test_linked_images_have_their_names_in_the_folder(command, photos, tmp_path):  # noqa: F811
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(photos / "0.png")
    out = tmp_path / "links" / "metadata.jsonl"
    assert command(tmp_path / "links", "--out", out)[0] == 0
    assert json.loads(out.read_text())["file_name"] == "a.png"


def test_files_that_cannot_be_written_are_reported_first(command, photos, tmp_path):  # noqa: F811
    (photos / "0.jpg").write_bytes((photos / "0.png").read_bytes())
    code, _, _ = command(photos, "--text-files")
    assert "0.jpg and " in code
    assert "would have the same text file" in code
    assert not list(photos.glob("*.txt"))
    code, _, _ = command(photos, "--out", tmp_path / "captions.xml")
    assert "must end in .json, .jsonl, .csv, got" in code
    code, _, _ = command(photos, "--overwrite")
    assert "--overwrite has no effect" in code
    assert not list(tmp_path.glob("captions*"))


def test_csv_quotes_what_needs_it(tmp_path):
    from pcm_plugin.formats.caption_results import write_results

    rows = [{"image_id": 1, "image": "a,b.png", "caption": 'a "red"\ndog', "log_prob": -1.5}]
    write_results(tmp_path / "captions.csv", rows)
    with open(tmp_path / "captions.csv", newline="") as file:
        assert list(csv.reader(file))[1] == ["1", "a,b.png", "1", 'a "red"\ndog', "-1.5"]
