import contextlib
import io
import json

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.clip_score import clip_score
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.registry import MODELS
from tests.builders import build_clip
from tests.test_tools.commands import run

REFERENCES = {
    7: ["A dog runs on the grass.", "the dog is running"],
    8: ["a red car in a street", "a car parked at the road"],
    9: ["two people ride horses", "people on two brown horses"],
}
CAPTIONS = {7: "the dog runs on grass", 8: "a red car parked in a street", 9: "two brown horses"}


@pytest.fixture
def files(tmp_path):
    references, captions = tmp_path / "references.json", tmp_path / "captions.json"
    write_coco_captions(references, [(i, f"{i}.png", texts) for i, texts in REFERENCES.items()])
    rows = [{"image_id": i, "caption": text} for i, text in CAPTIONS.items()]
    captions.write_text(json.dumps(rows))
    return tmp_path, captions, references


def score(folder, *args):
    return run("score", *args, log=folder / "log.txt", launcher=False)


def expected(**settings):
    metric = CaptionMetric(prefix="", **settings)
    samples = [
        {"image_id": i, "pred_caption": CAPTIONS[i], "gt_caption": texts}
        for i, texts in REFERENCES.items()
    ]
    metric.process(None, samples)
    return metric.evaluate(3)


def test_a_results_file_is_scored(files):
    folder, captions, references = files
    scorers = ["BLEU", "ROUGE-L", "CIDEr", "diversity"]
    result = score(
        folder, captions, references, "--scorers", *scorers, "--out", folder / "scores.json",
        "--per-image", folder / "each.json",
    )  # fmt: skip
    assert result.code == 0, result.output
    scores = json.loads((folder / "scores.json").read_text())
    assert scores.pop("tokens") == "en, ptb words"
    assert "tokens: en, ptb words" in result.output.splitlines()
    assert scores == expected(scorers=scorers)
    assert ["CIDEr", f"{scores['CIDEr']:.4f}"] in map(str.split, result.output.splitlines())
    assert len(json.loads((folder / "each.json").read_text())) == 3


def test_groups_are_also_scored_separately(files):
    folder, captions, references = files
    content = json.loads(references.read_text())
    for image in content["images"]:
        image["kind"] = "animals" if image["id"] != 8 else "things"
    references.write_text(json.dumps(content))
    command = [captions, references, "--groups", references, "--scorers", "ROUGE-L"]
    result = score(folder, *command, "--group-field", "kind", "--out", folder / "scores.json")
    assert result.code == 0, result.output
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["ROUGE-L"] == expected(scorers=["ROUGE-L"])["ROUGE-L"]
    assert scores["ROUGE-L"] == pytest.approx(
        (2 * scores["animals/ROUGE-L"] + scores["things/ROUGE-L"]) / 3
    )
    assert f"animals/ROUGE-L{scores['animals/ROUGE-L']:10.4f}" in result.output
    result = score(folder, *command)
    assert (result.code, "none of its 3 images has 'domain'" in result.output) == (1, True)


def test_karpathy_references_match_predictions_by_path(files):
    folder, captions, _ = files
    karpathy = folder / "karpathy.json"
    images = [
        {
            "filename": f"COCO_val2014_{i:012d}.jpg",
            "split": "val" if i == 9 else "test",
            "sentences": [{"raw": text, "sentid": f"{i}{n}"} for n, text in enumerate(texts)],
        }
        for i, texts in REFERENCES.items()
    ]
    karpathy.write_text(json.dumps({"images": images}))
    rows = [
        {"image_id": f"val2014/COCO_val2014_{i:012d}.jpg", "caption": text}
        for i, text in CAPTIONS.items()
    ]
    captions.write_text(json.dumps(rows))
    command = [captions, karpathy, "--out", folder / "scores.json"]
    result = score(folder, *command)
    assert result.code == 1
    message = "(split 'test'): 'val2014/COCO_val2014_000000000009.jpg' (--partial scores the 2 that"
    assert "1 of 3 predictions have no reference in" in result.output
    assert message in result.output
    result = score(folder, *command, "--partial")
    assert result.code == 0, result.output
    assert "1 of 3 predictions have no reference" in result.output
    two = CaptionMetric(prefix="")
    two.process(
        None,
        [{"image_id": i, "pred_caption": CAPTIONS[i], "gt_caption": REFERENCES[i]} for i in (7, 8)],
    )
    scores = json.loads((folder / "scores.json").read_text())
    assert scores == {"tokens": two.tokens, **two.evaluate(2)}


def test_clip_score_reads_the_images(files):
    folder, captions, references = files
    for i in REFERENCES:
        Image.new("RGB", (20, 20), (9 * i, 200 - 20 * i, 90)).save(folder / f"{i}.png")
    name = build_clip(folder / "clip")
    command = [captions, references, "--scorers", "CLIPScore", "--images", folder]
    result = score(folder, *command, "--model", name, "--out", folder / "scores.json")
    assert result.code == 0, result.output
    clip = MODELS.build({"type": "pcm_plugin.OpenCLIPBackbone", "model_name": name}).eval()
    images = [clip.preprocess(Image.open(folder / f"{i}.png")) for i in REFERENCES]
    seen = clip(torch.stack(images))[1]
    wanted = clip_score(seen, list(CAPTIONS.values()), list(REFERENCES.values()), clip).total
    found = json.loads((folder / "scores.json").read_text())
    assert found == pytest.approx(wanted, rel=1e-5)
    (folder / "8.png").unlink()
    result = score(folder, *command, "--model", name)
    assert result.code == 1
    assert "1 of 3 images are missing" in result.output


def test_invalid_inputs_are_rejected(files):
    folder, captions, references = files
    bad = folder / "bad.json"
    for content, message in (
        ("{", "is not a JSON file"),
        ("{}", "must be a COCO results file"),
        ("[]", "got an empty list"),
        ('[{"image_id": 1}]', "entry 0"),
        ('[{"image_id": null, "caption": "a"}]', "no image_id"),
        ('[{"image_id": 7, "caption": "a"}, {"image_id": 7, "caption": "b"}]', "has several"),
        ('[{"image_id": 70, "caption": "a"}]', "no image is in both files"),
        (
            '[{"image_id": "07", "caption": "a"}, {"image_id": "007", "caption": "b"}]',
            "'07', '007'",
        ),
    ):
        bad.write_text(content)
        result = score(folder, bad, references)
        assert result.code == 1
        assert message in result.output
        assert "Traceback" not in result.output
    result = score(folder, folder / "nowhere.json", references)
    assert (result.code, "nowhere.json" in result.output) == (1, True)
    result = score(folder, captions, references, "--scorers", "CLIPScore")
    assert (result.code, "--images FOLDER and --model" in result.output) == (2, True)


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return folder / name


def refs(ids, **fields):
    """Return references in COCO format, with two captions per id."""
    texts = [f"the number {i} stands on a {'red' if int(i) % 2 else 'blue'} wall" for i in ids]
    annotations = [
        {"id": 2 * n + k, "image_id": i, "caption": text[4 * k :]}
        for n, (i, text) in enumerate(zip(ids, texts, strict=True))
        for k in range(2)
    ]
    images = [{"id": i, "file_name": f"{int(i):012d}.jpg"} for i in ids]
    return {"images": images, "annotations": annotations} | fields


def test_an_id_with_a_dot_is_not_another_id(tmp_path):
    annotations = refs([1, 2])["annotations"]
    references = write(tmp_path, "refs.json", {"annotations": annotations})
    rows = [{"image_id": "1.2", "caption": "a"}, {"image_id": "2", "caption": "b"}]
    result = score(tmp_path, write(tmp_path, "captions.json", rows), references)
    assert result.code == 1
    assert "1 of 2 predictions have no reference in" in result.output
    assert ": '1.2';" in result.output
    assert "1 of 2 images in" in result.output
    assert "have no prediction: '1' (--partial scores the 1" in result.output


@pytest.mark.parametrize(
    "spelling",
    ["{:012d}", "{:012d}.jpg", "val2017/{:012d}.jpg", "COCO_val2014_{:012d}.jpg", "{}.png", "{}.0"],
)
def test_coco_file_names_match_numeric_ids(tmp_path, spelling):
    ids = [9, 25, 30, 139]
    references = write(tmp_path, "refs.json", refs(ids))
    wanted = {a["image_id"]: a["caption"] for a in refs(ids)["annotations"]}
    # Different spellings in one file are matched too.
    names = [*map(spelling.format, ids[:3]), 139]
    rows = [{"image_id": n, "caption": wanted[i]} for n, i in zip(names, ids, strict=True)]
    result = score(tmp_path, write(tmp_path, "captions.json", rows), references)
    assert result.code == 0, result.output
    assert f"BLEU-4{100:19.4f}" in result.output


def test_cider_of_a_single_image_is_not_zero(tmp_path):
    references = write(tmp_path, "refs.json", refs([9]))
    rows = write(tmp_path, "captions.json", [{"image_id": 9, "caption": "the number 9"}])
    out = tmp_path / "scores.json"
    result = score(tmp_path, rows, references, "--scorers", "CIDEr", "BLEU", "--out", out)
    assert result.code == 0, result.output
    assert f"CIDEr{'n/a':>20}" in result.output

    def refuse(text):
        raise AssertionError(text)

    scores = json.loads(out.read_text(), parse_constant=refuse)  # NaN is not JSON
    assert (scores["CIDEr"], scores["CIDEr-D"]) == (None, None)
    assert scores["BLEU-1"] > 0
    assert "undefined for a single image" in scores["remarks"][0]


def test_the_fixes_in_messages_work(tmp_path):
    content = refs([9, 25])
    content["annotations"][0]["caption"] = "word " * 300
    references = write(tmp_path, "refs.json", content)
    rows = [{"image_id": i, "caption": f"the number {i}"} for i in (9, 25)]
    captions = write(tmp_path, "captions.json", rows)
    result = score(tmp_path, captions, references)
    assert (result.code, "--skip-invalid" in result.output) == (1, True)
    result = score(tmp_path, captions, references, "--skip-invalid")
    assert result.code == 0, result.output
    assert "more than 1,000" in result.output
    table = tmp_path / "refs.csv"
    table.write_text("image,Text\n9.jpg,a red car\n25.jpg,a tall giraffe\n", "utf-8-sig")
    result = score(tmp_path, captions, table, "--column", "Text")
    assert result.code == 0, result.output


def test_images_whose_references_are_all_unusable_are_counted(tmp_path):
    content = refs([9, 25, 30])
    rows = [{"image_id": i, "caption": f"number {i}"} for i in (9, 25, 30)]
    captions = write(tmp_path, "captions.json", rows)
    # VizWiz marks captions of images on which its annotators did not agree.
    content["annotations"][4] |= {"is_rejected": True, "is_precanned": False}
    content["annotations"][5] |= {"is_rejected": False, "is_precanned": True}
    result = score(tmp_path, captions, write(tmp_path, "refs.json", content))
    assert result.code == 0, result.output
    assert "1 images have no usable reference in" in result.output
    assert "2 rejected or canned" in result.output
    content["annotations"] = content["annotations"][:4]
    again = score(tmp_path, captions, write(tmp_path, "refs.json", content))
    assert again.output.splitlines()[1:] == result.output.splitlines()[1:]


def test_captions_of_a_folder_are_scored(tmp_path):
    """Caption, then score, as in the README; pycocotools reads the file too."""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    names = ["9.png", "000000000025.png", "dog.png", "dog.jpg", "more/cat.webp"]
    for n, name in enumerate(names):
        Image.new("RGB", (32, 32), (40 * n, 200, 90)).save(photos / name)
    ids = [9, 25, "dog.png", "dog.jpg", "more/cat"]
    images = [{"id": i, "file_name": name} for i, name in zip(ids, names, strict=True)]
    annotations = [
        {"id": n, "image_id": i, "caption": f"a photo of number {n}"} for n, i in enumerate(ids)
    ]
    references = write(tmp_path, "refs.json", {"images": images, "annotations": annotations})
    out = tmp_path / "captions.json"
    command = ["pcm-net_toy", photos, "--out", out, "--num-captions", 2]
    result = run("caption", *command, log=tmp_path / "log", launcher=False)
    assert result.code == 0, result.output
    rows = json.loads(out.read_text())
    assert {row["image_id"] for row in rows} == {*ids}
    assert all(len(row["captions"]) == 2 for row in rows)
    result = score(tmp_path, out, references)
    assert result.code == 0, result.output
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(references).loadRes(str(out))
    assert {i: loaded.imgToAnns[i][0]["caption"] for i in ids} == {
        row["image_id"]: row["caption"] for row in rows
    }
    # The references have other ids, so that images are matched by file name.
    for n, image in enumerate(images):
        image["id"] = annotations[n]["image_id"] = (9, 7, 25, 5, 3)[n - 1]
    renumbered = write(tmp_path, "renumbered.json", {"images": images, "annotations": annotations})
    again = score(tmp_path, out, renumbered)
    assert again.code == 0, again.output
    assert again.output.splitlines()[-7:] == result.output.splitlines()[-7:]


def test_captions_are_tokenized_by_their_language(tmp_path):
    references = {1: ["一只狗在公园里"], 2: ["两只猫在桌子上"], 3: ["红色的汽车"]}
    captions = {1: "一只猫在公园里", 2: "两只猫在桌子上。", 3: "蓝色的汽车"}
    write_coco_captions(tmp_path / "r.json", [(i, "", t) for i, t in references.items()])
    rows = [{"image_id": i, "caption": text} for i, text in captions.items()]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    words = [tmp_path / "c.json", tmp_path / "r.json", "--out", tmp_path / "s.json"]
    result = score(tmp_path, *words, "--language", "zh")
    assert result.code == 0, result.output
    assert "tokens: zh, characters" in result.output
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["tokens"] == "zh, characters"
    # 6, 7 and 4 of 7, 7 and 5 characters occur in the references.
    assert scores["BLEU-1"] == pytest.approx(100 * 17 / 19)
    result = score(tmp_path, *words, "--language", "ko")  # whole captions are words
    assert json.loads((tmp_path / "s.json").read_text())["BLEU-1"] == pytest.approx(100 / 3)
    for options, message in (
        (
            ["--language", "zh", "--scorers", "METEOR", "SPICE"],
            "METEOR and SPICE know only English",
        ),
        (["--language", "zh", "--tokenizer", "ptb-java"], "ptb-java"),
        (["--language", "Chinese"], "`language` must be a code of ISO 639"),
    ):
        result = score(tmp_path, *words, *options)
        assert (result.code, message in result.output) == (1, True)
