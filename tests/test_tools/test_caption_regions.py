"""Tests of pcm caption for regions: options, files of regions, results."""

import json
import sys

import pandas
import pytest
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.apis.journal import Journal
from pcm_plugin.commands import caption
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes


@pytest.fixture(scope="module")
def inferencer(decap_file):
    return CaptionInferencer(weights=decap_file, device="cpu", show_progress=False)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, scene in zip(("7.png", "more/a.png", "b.png"), unseen_scenes(3), strict=True):
        render(scene, 0).image.save(folder / name)
    return folder


@pytest.fixture
def command(monkeypatch, capsys, decap_file, inferencer):
    """Return a function that runs the command here and returns exit code, stdout and stderr."""

    def build(config, weights, device, show_progress, patch_mode):
        return (
            inferencer
            if patch_mode is None
            else CaptionInferencer(
                weights=weights, device="cpu", show_progress=False, patch_mode=patch_mode
            )
        )

    monkeypatch.setattr("pcm_plugin.apis.inferencer.CaptionInferencer", build)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["caption", str(decap_file), *map(str, words)])
        code = 0
        try:
            caption.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_boxes_and_points_of_one_image(command, photos, tmp_path, inferencer):
    image = photos / "7.png"
    words = (image, "--point", 50.5, 60, "--box", 0, 0, 112, 56, "--box", 30, 4, 60, 80)
    expected = inferencer.regions(image, [(0, 0, 112, 56), (30, 4, 60, 80)], [(50.5, 60)])
    code, printed, _ = command(*words)
    assert code == 0
    places = ["0 0 112 56", "30 4 60 80", "50.5 60"]
    assert printed.splitlines() == [
        f"{image}\t{place}\t{row['caption']}" for place, row in zip(places, expected, strict=True)
    ]
    out = tmp_path / "new" / "regions.json"
    assert command(*words, "--out", out)[0] == 0
    assert json.loads(out.read_text()) == [{"image_id": 7, **row} for row in expected]


def test_the_patch_mode_and_settings_of_the_search_are_used(command, photos, tmp_path):
    words = (photos / "7.png", "--box", 5, 5, 60, 100, "--out")
    scores = {}
    for mode in ("plain", "sclip"):
        out = tmp_path / f"{mode}.jsonl"
        assert command(*words, out, "--patch-mode", mode, "--num-captions", 2)[0] == 0
        row = json.loads(out.read_text())
        assert len(row["captions"]) == 2
        scores[mode] = row["log_prob"]
    assert scores["plain"] != scores["sclip"]


def coco_file(path, **box):
    images = [{"id": 5, "file_name": "more/a.png"}, {"id": 3, "file_name": "b.png"}]
    annotations = [
        {"id": 11, "image_id": 3, "bbox": [10, 20, 30, 40.5]},
        {"id": 12, "image_id": 5, "bbox": [0, 0, 112, 112]},
        {"id": 13, "image_id": 3, "bbox": [50, 50, 20, 20], **box},
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_boxes_of_a_coco_file(command, photos, tmp_path, inferencer):
    boxes, out = coco_file(tmp_path / "boxes.json"), tmp_path / "out.json"
    assert command(photos, "--boxes", boxes, "--out", out)[0] == 0
    rows = json.loads(out.read_text())
    assert [(row["image_id"], row["region_id"]) for row in rows] == [(5, 12), (3, 11), (3, 13)]
    assert rows[1]["box"] == [10, 20, 40, 60.5]
    [expected] = inferencer.regions(photos / "b.png", [(10, 20, 40, 60.5)])
    assert rows[1]["caption"] == expected["caption"]
    assert rows[1]["log_prob"] == pytest.approx(expected["log_prob"], abs=1e-4)
    assert (
        command(photos, "--boxes", boxes, "--num-captions", 2, "--out", tmp_path / "o.csv")[0] == 0
    )
    frame = pandas.read_csv(tmp_path / "o.csv")
    assert frame["region_id"].tolist() == [12, 12, 11, 11, 13, 13]
    assert frame["rank"].tolist() == [1, 2] * 3
    assert frame["box"].tolist()[2:4] == ["10 20 40 60.5"] * 2
    assert frame["point"].isna().all()


def test_regions_of_lines_keep_their_order(command, photos, tmp_path):
    regions = [
        {"image": "b.png", "point": [5, 6], "id": "p"},
        {"image": "7.png", "box": [0, 0, 50, 50]},
        {"image": "b.png", "box": [0, 0, 50, 50], "id": "q"},
    ]
    path, out = write_lines(tmp_path / "regions.jsonl", regions), tmp_path / "out.jsonl"
    assert command(photos, "--boxes", path, "--out", out)[0] == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image_id"] for row in rows] == ["b", "b", 7]
    assert [row.get("region_id") for row in rows] == ["p", "q", None]
    assert [row.get("point") for row in rows] == [[5, 6], None, None]


def test_invalid_regions_of_a_file_are_reported_and_skipped(command, photos, tmp_path):
    boxes, out = coco_file(tmp_path / "b.json", bbox=[50, 50, 0, 9]), tmp_path / "out.json"
    (photos / "more" / "a.png").write_bytes(b"no image")
    code, _, errors = command(photos, "--boxes", boxes, "--out", out)
    assert code == "2 of 3 regions could not be captioned"
    assert f"{photos / 'b.png'}: a box must have x0 < x1 and y0 < y1, got 50 50 50 59" in errors
    assert "a.png is not an image" in errors
    assert [row["region_id"] for row in json.loads(out.read_text())] == [11]


def test_an_interrupted_run_continues(command, photos, tmp_path, monkeypatch):
    boxes, whole, out = coco_file(tmp_path / "b.json"), tmp_path / "all.json", tmp_path / "out.json"
    assert command(photos, "--boxes", boxes, "--out", whole)[0] == 0
    append = Journal.append

    def fail_later(journal, rows):
        if journal.count:
            raise OSError(28, "No space left on device")
        append(journal, rows)

    monkeypatch.setattr(Journal, "append", fail_later)
    code, _, errors = command(photos, "--boxes", boxes, "--out", out)
    assert "No space left" in code
    assert "1 of 2 images are captioned and kept in" in errors
    monkeypatch.setattr(Journal, "append", append)
    code, _, errors = command(photos, "--boxes", boxes, "--out", out, "--patch-mode", "sclip")
    assert "with other settings (model: " in code
    code, _, errors = command(photos, "--boxes", boxes, "--out", out)
    assert "resuming: 1 images are captioned already" in errors
    assert out.read_text() == whole.read_text()


def test_wrong_options_are_named(command, photos, tmp_path):
    image, boxes = photos / "7.png", coco_file(tmp_path / "boxes.json")
    one = ("--box", 1, 2, 3, 4)
    for words, message in (
        ((image, "--box", 60, 2, 30, 40), "x0 < x1 and y0 < y1, got 60 2 30 40"),
        ((image, "--box", 0, 0, 640, 480), "of 112 x 112 pixels, got 0 0 640 480"),
        ((image, "--point", 112, 5), "of 112 x 112 pixels, got 112 5"),
        ((photos, *one), "--box and --point need one image, got 3: use --boxes FILE"),
        ((image, "--boxes", boxes), "--boxes needs the folder of its images, got"),
        ((photos, *one, "--boxes", boxes), "--boxes must not be combined with --box"),
        ((image, *one, "--html", "a.html"), "--html is not available for regions: use --out"),
        ((image, *one, "--text-files"), "--text-files is not available for regions"),
        ((image, *one, "--rerank-clip", "x"), "--rerank-clip is not available for regions: leave"),
        ((image, *one, "--out", "a.txt"), "must end in .json, .jsonl, .csv, got a.txt"),
        ((image, *one, "--out", "metadata.jsonl"), "metadata.jsonl has one text per image"),
        ((image, *one, "--patch-mode", "dense"), "`patch_mode` must be one of plain, maskclip"),
        ((image, "--patch-mode", "sclip"), "--patch-mode has no effect without --box"),
        ((photos, "--boxes", tmp_path / "no.json"), "no file of regions at"),
    ):
        code, printed, _ = command(*words)
        assert message in str(code)
        assert not printed


def test_files_without_valid_regions_are_named(command, photos, tmp_path):
    path = tmp_path / "regions.jsonl"
    for row, message in (
        ({"image": "b.png"}, 'regions.jsonl: line 2 must have either "box" or "point"'),
        ({"image": "b.png", "box": [1, 2, 3]}, '"box", a list of 4 numbers, got [1, 2, 3]'),
        ({"image": "b.png", "point": [1, "2"]}, "\"point\", a list of 2 numbers, got [1, '2']"),
        ({"box": [1, 2, 3, 4]}, 'regions.jsonl: line 2 must have "image", got None'),
        ({"image": "x.png", "box": [1, 2, 3, 4]}, "1 of the 2 images of"),
    ):
        write_lines(path, [{"image": "b.png", "box": [0, 0, 5, 5]}, row])
        assert message in command(photos, "--boxes", path)[0]
    path.write_text("{")
    assert "regions.jsonl: line 1 is not JSON" in command(photos, "--boxes", path)[0]
    path.write_text("")
    assert "contains no regions" in command(photos, "--boxes", path)[0]
    path = tmp_path / "regions.json"
    for content, message in (
        ([], 'is not a COCO annotations file: no "images" and "annotations"'),
        ({"images": [{"id": 1}], "annotations": []}, 'images[0] must have "file_name", got None'),
        ({"images": [], "annotations": 3}, '"annotations" must be a list of objects'),
        (
            {"images": [], "annotations": [{"image_id": 4, "bbox": [0, 0, 1, 1]}]},
            'annotations[0]: image_id=4 is none of the "images"',
        ),
    ):
        path.write_text(json.dumps(content))
        assert message in command(photos, "--boxes", path)[0]
    assert "must be COCO JSON (.json) or .jsonl" in command(photos, "--boxes", photos / "7.png")[0]


def test_other_captioners_name_the_config_to_train(photos, monkeypatch, capsys):
    Image.new("RGB", (50, 50)).save(photos / "small.png")
    words = [
        "caption",
        "pcm-net_toy",
        str(photos / "small.png"),
        "--box",
        *"1234",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"train DeCap .configs/decap/decap_coco.py"):
        caption.main()
